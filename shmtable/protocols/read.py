"""Sampling: pick, gather, validate.

1. Under the lock: the sampler picks windows; their slots' generations are remembered.
2. Holding nothing: gather every column into fresh tensors. Writers go on, and what is read may
   be ejected and overwritten meanwhile.
3. Under the lock: compare generations. A window whose sequence has left is picked and gathered
   anew; all others are what they were at 1, because a generation rises before its rows are given
   to anybody else.
"""

from __future__ import annotations

import multiprocessing
import time

import numpy as np
import torch
from torch import Tensor

from shmtable.columns import Windows, gather_columns
from shmtable.errors import (
    EmptyTableError,
    NoWindowError,
    SampleError,
    StrategyError,
    WaitTimeoutError,
)
from shmtable.index import fields as f
from shmtable.protocols.core import LOCK_TIMEOUT_S, Core
from shmtable.shm.header import DIRTY
from shmtable.types import Int64Array, SamplePoints, SampleResult

# After so many rounds the sampler is plainly slower than the churn around it; what is still
# missing is gathered under the lock, where nothing can leave.
_ROUNDS = 8
_MOST_BYTES_LOCKED = 1 << 20


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
    """
    points = _pick(core, count, steps, timeout_s)
    columns = _gather(core, points, steps)
    for round_number in range(_ROUNDS):
        stale = core.guard.run(_validate_locked, core, points, steps)
        if stale is None:
            return _result(core, columns, points)
        if round_number == _ROUNDS - 1:
            break
        fresh = _pick(core, len(stale), steps, timeout_s)
        points = _splice(columns, points, stale, _gather(core, fresh, steps), fresh)
    return core.guard.run(_finish_locked, core, columns, points, stale, steps)


def _result(core: Core, columns: dict[str, Tensor], points: SamplePoints) -> SampleResult:
    return SampleResult(columns, points=points, weights=core.sampler.weights(points))


def _pick(core: Core, count: int, steps: int, timeout_s: float | None) -> SamplePoints:
    deadline: float | None = None
    while True:
        points, seen = core.guard.run(_pick_locked, core, count, steps)
        if points is not None:
            return points
        now = time.monotonic()
        if deadline is None and timeout_s is not None:
            deadline = now + timeout_s
        if deadline is not None and now >= deadline:
            error = core.guard.run(_nothing_locked, core, steps)
            if not timeout_s:
                raise error
            fact = str(error).partition(";")[0]
            raise WaitTimeoutError(
                f"waited {timeout_s:g} s for something to sample: {fact}; {core.company()}",
                timeout_s=timeout_s,
            )
        _refuse_to_wait_alone(core)
        core.guard.bell.wait(seen, LOCK_TIMEOUT_S if deadline is None else deadline - now)


def _pick_locked(core: Core, count: int, steps: int) -> tuple[SamplePoints | None, int]:
    if core.arena.words[f.LIVE_COUNT]:
        points = core.sampler.sample(count, steps, core.random_locked())
        if len(points):
            if len(points) != count:
                raise StrategyError(
                    f"the sampler chose {len(points)} windows, {count} were asked for: it must "
                    "return exactly so many, or none at all when no sequence offers one"
                )
            return points, 0
    return None, core.guard.bell.seen_locked()


def _refuse_to_wait_alone(core: Core) -> None:
    """Raise when nobody is left who could add: others had the table open, and all have died.

    A living child of this process may be a new worker that has not come to the table yet, and
    where this process has added before, another thread of it may add again.
    """
    others = core.attachments.others()
    if (
        others
        and core.attachments.can_tell()
        and not core.attachments.has_added()
        and all(attachment.is_gone() for attachment in others)
        and not multiprocessing.active_children()
    ):
        raise WaitTimeoutError(
            "there is nothing to sample, and nobody left who could add: every other process that "
            f"had the table open has died: {'; '.join(map(str, others[-8:]))}; see why they "
            "ended and start new ones"
        )


def _nothing_locked(core: Core, steps: int) -> SampleError:
    live = core.view.live_slots()
    if not len(live):
        return EmptyTableError(
            "the table is empty; add a sequence first, or pass timeout_s to wait for one"
        )
    longest = int(core.arrays.slots[live, f.LENGTH].max())
    if longest >= steps or core.view.short:
        # Not for want of windows: with epsilon=0 a priority of 0 means never.
        return NoWindowError(
            f"{type(core.sampler).__name__} draws none of the windows of {steps} transitions that "
            f"{len(live)} sequences offer: all their weights are 0; raise some, or its epsilon",
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


def _gather(core: Core, points: SamplePoints, steps: int) -> dict[str, Tensor]:
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
    return gather_columns(core.schema, windows, pad=pad, layout=layout)


def _validate_locked(core: Core, points: SamplePoints, steps: int) -> Int64Array | None:
    """Which windows have lost their sequence; None when all are good, and then they count."""
    slots = points.slots
    stale: Int64Array = (core.arrays.generations[slots] != points.generations).nonzero()[0]
    if len(stale):
        return stale
    words = core.arena.words
    if core.listeners:
        words[DIRTY] = 1  # before the counts, too: listeners may derive something from them
    np.add.at(core.arrays.times_sampled, slots, 1)
    words[f.WINDOWS_SAMPLED] += len(slots)
    core.attachments.sampled()
    if core.listeners:
        for strategy in core.listeners:
            strategy.on_sample(points, steps)
        words[DIRTY] = 0
    return None


def _splice(
    columns: dict[str, Tensor],
    points: SamplePoints,
    places: Int64Array,
    fresh: dict[str, Tensor],
    new: SamplePoints,
) -> SamplePoints:
    """Put freshly drawn windows in the places of lost ones."""
    count = len(points)
    rows = torch.from_numpy(places)
    for name, column in columns.items():
        if column.numel():
            # As bytes, since not every dtype can be assigned by index.
            target = column.view(count, -1).view(torch.uint8)
            target[rows] = fresh[name].view(len(places), -1).view(torch.uint8)
    return points.replaced(places, new)


def _finish_locked(
    core: Core, columns: dict[str, Tensor], points: SamplePoints, stale: Int64Array, steps: int
) -> SampleResult:
    """Draw and gather the last few windows where nobody can eject them."""
    per_window = sum(t.numel() * t.element_size() for t in columns.values()) // len(points)
    if per_window * len(stale) > _MOST_BYTES_LOCKED:
        raise WaitTimeoutError(
            f"{len(stale)} of {len(points)} windows were ejected while they were being copied, "
            f"{_ROUNDS} times in a row; the table is too small for the rate of adds: raise maxlen"
        )
    fresh, _ = _pick_locked(core, len(stale), steps)
    if fresh is None:
        raise _nothing_locked(core, steps)
    points = _splice(columns, points, stale, _gather(core, fresh, steps), fresh)
    still = _validate_locked(core, points, steps)
    if still is not None:
        # Those gathered before this section have aged again; those gathered in it cannot.
        return _finish_locked(core, columns, points, still, steps)
    return _result(core, columns, points)
