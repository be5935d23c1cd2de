"""Sampling: pick, gather, validate.

1. Under the lock: the sampler picks windows; their slots' generations are remembered.
2. Holding nothing: gather every column into fresh tensors. Writers go on, and what is read may
   be ejected and overwritten, or updated in place, meanwhile.
3. Under the lock: compare generations. All windows whose sequence is still there are what they
   were at 1, because a generation rises before its rows are given to anybody else, and a version
   before rows are updated in place. For the others new ones are picked in the same section, and
   2 and 3 come again. Where EXITS is still what it was at 1, no generation has risen: it does so
   before any of them, in the same section, and of a section that was cut off the repair that
   comes before 3 raises it once more.

Where the table has a limiter, or uses sequences up, 3 also decides whether the windows may be
handed out at all: see ``pace`` and ``consume``.
"""

from __future__ import annotations

import multiprocessing
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shmtable.columns import DeviceStorage, Windows, gather_columns
from shmtable.errors import (
    EmptyTableError,
    NoWindowError,
    SampleError,
    StrategyError,
    WaitTimeoutError,
)
from shmtable.index import fields as f
from shmtable.protocols import consume
from shmtable.protocols.core import Core
from shmtable.protocols.device import refuse_lost
from shmtable.protocols.pace import Held
from shmtable.protocols.wait import Wait
from shmtable.shm.header import DIRTY
from shmtable.types import Int64Array, SamplePoints, SampleResult

# After so many rounds the sampler is plainly slower than the churn around it; what is still
# missing is gathered under the lock, where nothing can leave.
_ROUNDS = 8
_MOST_BYTES_LOCKED = 1 << 20
# Up to so much is gathered anew as a whole when a few windows are lost: that takes less time than
# putting those few in their places, column by column.
_WHOLE_BYTES = 1 << 20
_NONE: Int64Array = np.empty(0, np.int64)
_ONE: Int64Array = np.array(1)  # an array already: numpy would make one of the number each time
_WEIGHTS = ""  # beside the columns, of which none has this name
_Moment = tuple[int, int]  # UPDATES and EXITS, when windows were picked
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}


def sample(core: Core, count: int, steps: int, timeout_s: float | None) -> SampleResult:
    """Draw ``count`` windows of ``steps`` transitions.

    Args:
        core: the table.
        count: windows (B), at least 1.
        steps: transitions per window (L), at least 1.
        timeout_s: how long to wait for data; 0 not at all, None for ever.

    Raises:
        EmptyTableError: nothing to sample, and no waiting was asked for.
        NoWindowError: no sequence is long enough, and no waiting was asked for.
        WaitTimeoutError: nothing to sample came in time.
        RateLimitedError: the limiter did not admit the sample in time.
        SpecError: under this limiter it could make adds and samples wait for each other for ever.
    """
    wait = Wait(core, timeout_s, f.SAMPLES_WAITED_NS)
    points, moment = _pick(core, count, steps, wait)
    columns, weights = _gather(core, points, steps)
    rounds = 0
    while True:
        lost = core.guard.run(_validate_locked, core, points, steps, moment)
        if lost is None:
            return _result(core, columns, points, weights)
        if isinstance(lost, _Lost):
            rounds += 1
            # Where there are no others yet, they are waited for as ever.
            if rounds < _ROUNDS or lost.fresh is None:
                points, columns, weights = _renew(core, columns, points, lost, steps, wait)
                moment = lost.moment
                continue
            weights = None
            points, lost = core.guard.run(_finish_locked, core, columns, points, lost, steps)
            if lost is None:
                return _result(core, columns, points, None)
        _sleep(core, count, steps, wait, lost.bell)


def _result(
    core: Core, columns: dict[str, Tensor], points: SamplePoints, weights: Tensor | None
) -> SampleResult:
    if weights is None and core.weighs:
        weights = core.sampler.weights(points)
        if weights is not None and isinstance(core.storage, DeviceStorage):
            found = {_WEIGHTS: weights}
            weights = core.storage.whole(lambda: found)[_WEIGHTS]
    return SampleResult(columns, points=points, weights=weights)


class _Seen(NamedTuple):
    """What others have taken meanwhile has to be waited for: until the bell is another."""

    bell: int


class _Lost(NamedTuple):
    """Windows whose sequences have left, or were updated, since they were picked.

    ``fresh`` are others for the same ``places``; None if there are none now. At the ``moment`` of
    the section that found it, all but those lost were what they were when picked.
    """

    places: Int64Array
    fresh: SamplePoints | None
    moment: _Moment


def _pick(
    core: Core, count: int, steps: int, wait: Wait, kept: Int64Array = _NONE
) -> tuple[SamplePoints, _Moment]:
    """Windows beside those in the slots ``kept``, and when they were picked."""
    while True:
        points, moment = core.guard.run(_pick_locked, core, count, steps, kept)
        if points is not None:
            return points, moment
        _sleep(core, count + len(kept), steps, wait, moment[0])


def _sleep(core: Core, count: int, steps: int, wait: Wait, seen: int) -> None:
    """Wait for the bell; raise when the time is up, or when nobody is left to ring it."""
    if wait.is_over():
        error = core.guard.run(_nothing_locked, core, count, steps)
        if error is None:
            return  # there is one by now
        if isinstance(error, Held):
            raise wait.rate_limited("sample", error.reason)
        if not wait.timeout_s:
            raise error
        fact = str(error).partition(";")[0]
        raise WaitTimeoutError(
            f"waited {wait.timeout_s:g} s for something to sample: {fact}; {core.company()}",
            timeout_s=wait.timeout_s,
        )
    refuse_lost(core.memory)
    _refuse_to_wait_alone(core, count, steps)
    if core.arena.words[f.PACE] and wait.is_to_tell():
        wait.tell("sample", core.guard.run(_why_locked, core, count, steps))
    wait.sleep(seen)


def _pick_locked(
    core: Core, count: int, steps: int, kept: Int64Array = _NONE
) -> tuple[SamplePoints | None, _Moment]:
    """Windows and the moment; or None, and what the bell showed."""
    words = core.arena.words
    if words[f.PACE]:
        points = consume.pick_locked(core, _draw_locked, count, steps, kept)
        if points is not None:
            return points, (words[f.UPDATES], words[f.EXITS])
    elif words[f.LIVE_COUNT]:
        points = _draw_locked(core, count, steps)
        if len(points.slots):
            return points, (words[f.UPDATES], words[f.EXITS])
    return None, (core.guard.bell.seen_locked(), 0)


def _draw_locked(core: Core, count: int, steps: int) -> SamplePoints:
    points = core.sampler.sample(count, steps, core.random_locked())
    found = len(points.slots)
    if found != count and found:
        raise StrategyError(
            f"the sampler chose {found} windows, {count} were asked for: it must "
            "return exactly so many, or none at all when no sequence offers one"
        )
    return points


def _refuse_to_wait_alone(core: Core, count: int, steps: int) -> None:
    """Raise when nobody is left who could add."""
    gone = died(core)
    # Once more: the last one may have added right before it died.
    if gone and core.guard.run(_nothing_locked, core, count, steps) is not None:
        raise WaitTimeoutError(
            f"there is nothing to sample, and nobody left who could add: {gone}; see why they "
            "ended and start new ones"
        )


def died(core: Core) -> str:
    """Who had the table open besides this process, if all of them have died; else empty.

    A living child of this process may be a new worker that has not come to the table yet, and
    where this process has added before, another thread of it may add again: then it is empty too.
    """
    others = core.attachments.others()
    if (
        others
        and core.attachments.can_tell()
        and not core.attachments.has_added()
        and all(attachment.is_gone() for attachment in others)
        and not multiprocessing.active_children()
    ):
        names = "; ".join(map(str, others[-8:]))
        return f"every other process that had the table open has died: {names}"
    return ""


def _why_locked(core: Core, count: int, steps: int) -> str:
    """What a sample waits for. Draws nothing: what is drawn may count as handed out."""
    held = core.pace.sample_locked(count, steps)
    return consume.missing_locked(core, count, steps) if held is None else held.reason


def _nothing_locked(core: Core, count: int, steps: int) -> SampleError | Held | None:
    """Why there is no sample; None where there is one by now."""
    # Asked in this section: since the last pick, somebody may have added what was missing.
    if _pick_locked(core, count, steps)[0] is not None:
        return None
    live = core.view.live_slots()
    if not len(live):
        return EmptyTableError(
            "the table is empty; add a sequence first, or pass timeout_s to wait for one"
        )
    longest = int(core.arrays.slots[live, f.LENGTH].max())
    if core.arena.words[f.PACE]:
        held = core.pace.sample_locked(count, steps)
        if held is not None:
            return held
        if longest >= steps or core.view.short:
            return NoWindowError(
                f"{consume.missing_locked(core, count, steps)}; add more, or ask for fewer",
                sequence_length=steps,
                longest=longest,
            )
    if longest >= steps or core.view.short:
        # Not for want of windows: with epsilon=0 a priority of 0 means never.
        return NoWindowError(
            f"{type(core.sampler).__name__} draws none of the windows of {steps} transitions that "
            f"{len(live)} sequences offer: it leaves them out, or all their weights are 0; raise "
            "some, or its epsilon",
            sequence_length=steps,
            longest=longest,
        )
    return NoWindowError(
        f"sequence_length is {steps}, the longest of {len(live)} sequences has {longest} "
        "transitions; ask for shorter windows, add longer sequences, or make the table with "
        "pad='zero' or pad='edge'",
        sequence_length=steps,
        longest=longest,
    )


def _gather(
    core: Core, points: SamplePoints, steps: int
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The columns; and the weights, if it saves a transfer to have them now."""
    pad, layout = core.options.pad, core.options.layout
    windows = Windows(
        core.storage,
        points.slots,
        points.starts,
        points.offsets,
        points.lengths,
        steps,
        clamp=pad is not None,
    )
    if not isinstance(core.storage, DeviceStorage):
        return gather_columns(core.schema, windows, pad=pad, layout=layout), None

    def gather() -> dict[str, Tensor]:
        columns = gather_columns(core.schema, windows, pad=pad, layout=layout)
        weights = core.sampler.weights(points)
        return columns if weights is None else {**columns, _WEIGHTS: weights}

    # Complete when it returns: what comes next is the comparison of generations.
    columns = core.storage.whole(gather, windows.places())
    return columns, columns.pop(_WEIGHTS, None)


def _validate_locked(
    core: Core, points: SamplePoints, steps: int, moment: _Moment
) -> _Lost | _Seen | None:
    """Which windows have lost their sequence, or were updated, after the ``moment``.

    None when all are good, and then they count.
    """
    slots, words, (updates, exits) = points.slots, core.arena.words, moment
    if words[f.EXITS] != exits or words[f.UPDATES] != updates:
        records = core.arrays.slots.take(slots, axis=0)
        stale = records[:, f.GENERATION] != points.generations
        stale |= records[:, f.VERSION] > updates
        if stale.any():
            return _lost_locked(core, points, stale.nonzero()[0], steps)
    if words[f.PACE]:
        over = consume.over_locked(core, points, steps)
        if over is not None:
            if isinstance(over, Held):
                return _Seen(core.guard.bell.seen_locked())
            return _lost_locked(core, points, over, steps)
    if core.listeners:
        words[DIRTY] = 1  # before the counts, too: listeners may derive something from them
    np.add.at(core.arrays.times_sampled, slots, _ONE)
    words[f.WINDOWS_SAMPLED] += len(slots)
    words[f.STEPS_SAMPLED] += len(slots) * steps
    core.attachments.sampled()
    if core.listeners:
        for strategy in core.listeners:
            strategy.on_sample(points, steps)
        words[DIRTY] = 0
    if words[f.PACE]:
        consume.count_locked(core, points, steps)
    return None


def _lost_locked(core: Core, points: SamplePoints, places: Int64Array, steps: int) -> _Lost:
    """Draw others for windows that are lost."""
    words = core.arena.words
    moment = words[f.UPDATES], words[f.EXITS]
    kept = np.delete(points.slots, places) if words[f.PACE] else _NONE
    return _Lost(places, _pick_locked(core, len(places), steps, kept)[0], moment)


def _renew(
    core: Core,
    columns: dict[str, Tensor],
    points: SamplePoints,
    lost: _Lost,
    steps: int,
    wait: Wait,
) -> tuple[SamplePoints, dict[str, Tensor], Tensor | None]:
    """Have others in the places of lost windows: the points, the columns and perhaps weights."""
    fresh = lost.fresh
    if fresh is None:
        kept = np.delete(points.slots, lost.places)
        fresh, _ = _pick(core, len(lost.places), steps, wait, kept)
    if _bytes_of(columns) > _WHOLE_BYTES:
        return _splice(core, columns, points, lost.places, fresh, steps), columns, None
    points = points.replaced(lost.places, fresh)
    return points, *_gather(core, points, steps)


def _splice(
    core: Core,
    columns: dict[str, Tensor],
    points: SamplePoints,
    places: Int64Array,
    new: SamplePoints,
    steps: int,
) -> SamplePoints:
    """Gather freshly drawn windows, and put them in the places of lost ones."""
    fresh, _ = _gather(core, new, steps)
    pairs = [
        (_by_window(column, len(points)), _by_window(fresh[name], len(new)))
        for name, column in columns.items()
        if column.numel()
    ]
    core.storage.replace(pairs, places)
    return points.replaced(places, new)


def _bytes_of(columns: dict[str, Tensor]) -> int:
    return sum(column.numel() * column.element_size() for column in columns.values())


def _by_window(column: Tensor, count: int) -> Tensor:
    """[count, rows, *shape] as bits, since not every dtype can be assigned by index."""
    bits = column.view(_BITS[column.element_size()])
    return bits.view(count, len(column) // count, *column.shape[1:])


def _finish_locked(
    core: Core,
    columns: dict[str, Tensor],
    points: SamplePoints,
    lost: _Lost,
    steps: int,
) -> tuple[SamplePoints, _Seen | None]:
    """Gather the last few windows where nobody can eject them; None: all are good."""
    while True:
        if _bytes_of(columns) // len(points) * len(lost.places) > _MOST_BYTES_LOCKED:
            raise WaitTimeoutError(
                f"{len(lost.places)} of {len(points)} windows were ejected while they were being "
                f"copied, {_ROUNDS} times in a row; the table is too small for the rate of adds: "
                "raise maxlen"
            )
        if lost.fresh is None:
            return points, _Seen(core.guard.bell.seen_locked())
        points = _splice(core, columns, points, lost.places, lost.fresh, steps)
        # Those drawn before this section may have aged again; those drawn in it cannot, so the
        # second time is the last.
        still = _validate_locked(core, points, steps, lost.moment)
        if not isinstance(still, _Lost):
            return points, still
        lost = still
