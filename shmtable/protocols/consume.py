"""Using sequences up: ``max_times_sampled``, and queues, in which each is handed out once.

A sequence is used up where a sample is validated, in the same section: windows beyond what their
sequence may still give are drawn again, like those whose sequence has left; then all count, and
sequences that have nothing left to give go (generation + 1, FREE). Nobody owns a sequence in
between, so a reader that dies before has taken nothing, and needs nobody to give it back. One that
dies in the section, or after it, has had its sample.

A queue asks for nothing but the state: what is LIVE has not been handed out. So it starts well
with whatever a table holds, and a crash cannot skew it. With ``max_times_sampled`` the counts
decide; what they say is used up and still LIVE (a crash came between the two, or a file says so)
goes when it is met.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shmtable.errors import NoWindowError
from shmtable.protocols.core import Core
from shmtable.protocols.pace import Held
from shmtable.types import BoolArray, Int64Array, SamplePoints

Draw = Callable[[Core, int, int], SamplePoints]

# After so many draws the rest is taken from whatever is left: most draws hit what is used up.
_DRAWS = 4


def pick_locked(
    core: Core, draw: Draw, count: int, steps: int, kept: Int64Array
) -> SamplePoints | None:
    """Pick windows of a paced table: as many as asked for, or None to wait.

    Args:
        core: the table.
        draw: asks the sampler for so many windows, at least 1 live sequence there is.
        count: windows to pick.
        steps: transitions per window.
        kept: int64 [k], the slots of the windows that the sample has already.

    Raises:
        NoWindowError: waiting would be in vain, because an add waits as well.
        SpecError: a sample that could make both sides wait for ever.
    """
    pace = core.pace
    if pace.sample_locked(count + len(kept), steps) is None and core.view.live_count:
        most = pace.uses_up_locked()
        points = (
            draw(core, count, steps)
            if most is None
            else _choose_locked(core, draw, count, steps, kept, most)
        )
        if points is not None and len(points):
            return points
    if held := pace.waiting_add_locked():
        raise NoWindowError(
            f"{missing_locked(core, count + len(kept), steps)}; and add_sequence waits as well: "
            f"{held}",
            sequence_length=steps,
        )
    return None


def over_locked(core: Core, points: SamplePoints, steps: int) -> Int64Array | Held | None:
    """Whether live windows may be handed out: which may not, or that they have to wait."""
    most = core.pace.uses_up_locked()
    if most is not None:
        left = _left_locked(core, points.slots, most)
        over: Int64Array = (_ranks(points.slots) >= left).nonzero()[0]
        if len(over):
            return over
    return core.pace.sample_locked(len(points), steps)


def count_locked(core: Core, points: SamplePoints, steps: int) -> None:
    """After windows have been counted: what is used up goes, and waiting adds may go on."""
    most = core.pace.uses_up_locked()
    if most is not None:
        slots = points.slots
        if not core.pace.is_queue_locked():
            slots = slots[core.arrays.times_sampled[slots] >= most]
        if len(slots):
            core.index.eject_locked(np.unique(slots).tolist())
    if core.pace.sampled_locked(len(points), steps):
        core.index.ring()


def missing_locked(core: Core, count: int, steps: int) -> str:
    """How far short of ``count`` windows a table falls in which sequences are used up."""
    found = _windows_left_locked(core, steps)
    live = core.view.live_slots()
    short = int((core.view.window_counts(live, steps) == 0).sum())
    text = f"{found} of the {count} windows asked for can be handed out"
    if short:
        text += f", {short} of {len(live)} sequences are shorter than {steps} transitions"
    return text


def can_sample_locked(core: Core, count: int, steps: int) -> bool:
    """Whether there are windows for a sample and the limiter admits it."""
    if not core.pace.can_sample_locked(count, steps):
        return False
    most = core.pace.uses_up_locked()
    if most is not None:
        return _windows_left_locked(core, steps) >= count
    return bool(core.view.window_counts(core.view.live_slots(), steps).any())


def _windows_left_locked(core: Core, steps: int) -> int:
    live = core.view.live_slots()
    live = live[core.view.window_counts(live, steps) > 0]
    most = core.pace.uses_up_locked()
    if most is None:
        return len(live)
    return int(np.maximum(_left_locked(core, live, most), 0).sum())


def _choose_locked(
    core: Core, draw: Draw, count: int, steps: int, kept: Int64Array, most: int
) -> SamplePoints | None:
    """The sampler's choice without what is used up; the rest from what is left."""
    parts: list[SamplePoints] = []
    taken = kept
    for _ in range(_DRAWS):
        missing = count + len(kept) - len(taken)
        # A sampler that takes one after the other begins with what this sample has already.
        extra = len(taken) if core.sampler.pass_order else 0
        points = draw(core, missing + extra, steps)
        if not len(points):
            return None
        if _drop_used_up_locked(core, points.slots, most):
            if not core.view.live_count:
                return None
            continue
        fitting = _fitting_locked(core, points.slots, taken, most).nonzero()[0][:missing]
        parts.append(points.at(fitting))
        taken = np.concatenate([taken, points.slots[fitting]])
        if len(fitting) == missing:
            return SamplePoints.joined(parts)
    slots = _rest_locked(core, steps, taken, most)
    missing = count + len(kept) - len(taken)
    if len(slots) < missing:
        return None
    random = core.random_locked()
    slots = random.permutation(slots)[:missing]
    offsets = random.integers(0, core.view.window_counts(slots, steps))
    return SamplePoints.joined([*parts, core.view.points(slots, offsets)])


def _drop_used_up_locked(core: Core, drawn: Int64Array, most: int) -> bool:
    """Once one is met that is used up, all of them go; whether there were any."""
    if (_left_locked(core, drawn, most) > 0).all():
        return False
    live = core.view.live_slots()
    core.index.eject_locked(live[_left_locked(core, live, most) <= 0].tolist())
    return True


def _rest_locked(core: Core, steps: int, taken: Int64Array, most: int) -> Int64Array:
    """Every live slot as often as it may still be handed out beside those taken."""
    live = core.view.live_slots()
    live = live[core.view.window_counts(live, steps) > 0]
    slots = np.repeat(live, np.maximum(_left_locked(core, live, most), 0))
    return slots[_fitting_locked(core, slots, taken, most)]


def _left_locked(core: Core, slots: Int64Array, most: int) -> Int64Array:
    """How often each slot's sequence may still be handed out."""
    if core.pace.is_queue_locked():
        return np.ones(len(slots), np.int64)
    left: Int64Array = most - core.arrays.times_sampled[slots]
    return left


def _fitting_locked(core: Core, slots: Int64Array, taken: Int64Array, most: int) -> BoolArray:
    """Which of ``slots`` their sequences may still give, after those taken and those before."""
    ranks = _ranks(np.concatenate([taken, slots]))[len(taken) :]
    fitting: BoolArray = ranks < _left_locked(core, slots, most)
    return fitting


def _ranks(slots: Int64Array) -> Int64Array:
    """How often each value has occurred before it: [5, 7, 5, 5] gives [0, 0, 1, 2]."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    places = np.arange(len(slots))
    first = np.append(True, ordered[1:] != ordered[:-1])[: len(slots)]
    ranks = np.empty(len(slots), np.int64)
    ranks[order] = places - np.maximum.accumulate(np.where(first, places, 0))
    return ranks
