"""Priorities: given with a sequence, and updated by the learner.

An update may come long after its sample. Under the lock each point's generation is compared, and
those whose sequence has left meanwhile are passed over: their rows may be another's by now.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shmtable.errors import PriorityError
from shmtable.index import fields as f
from shmtable.protocols.core import Core
from shmtable.shm.header import DIRTY
from shmtable.strategies import MOST_PRIORITY
from shmtable.types import SamplePoints

Float64Array = npt.NDArray[np.float64]


def update_priorities(core: Core, points: Any, priorities: Any) -> int:
    """Give windows new priorities; see ``ArrayMemoryTable.update_priorities``."""
    _refuse_without(core)
    if not isinstance(points, SamplePoints):
        raise PriorityError(
            f"points is a {type(points).__name__}; give the .points of a sample of this table"
        )
    values = _as_priorities(priorities)
    if not len(points):
        return 0
    flat = not values.ndim or len(values) == values.size
    if not values.size or values.size % len(points) or not (flat or len(values) == len(points)):
        raise PriorityError(
            f"priorities have shape {values.shape} for {len(points)} windows; give one for each, "
            "or one for each transition of each, window by window"
        )
    return core.guard.run(_update_locked, core, points, values.reshape(len(points), -1))


def _update_locked(core: Core, points: SamplePoints, values: Float64Array) -> int:
    slots, offsets = points.slots, points.offsets
    if slots.min() < 1 or slots.max() >= core.arena.words[f.SLOT_HIGH]:
        raise PriorityError("points name slots this table has never had; give those of its sample")
    records = core.arrays.slots.take(slots, axis=0)
    # Another table's points may have the right generation, and a slot that is being written, too.
    current = (records[:, f.GENERATION] == points.generations) & (records[:, f.STATE] == f.LIVE)
    current &= records[:, f.IDENTITY] == points.identities
    current &= records[:, f.START] + offsets == points.starts
    current &= (offsets >= 0) & (offsets < records[:, f.LENGTH])
    if values.shape[1] > 1:
        # A padded window reaches past its sequence; what was computed there belongs to nobody.
        left = records[:, f.LENGTH] - offsets
        values = np.where(np.arange(values.shape[1]) < left[:, None], values, np.nan)
    if not current.all():
        points, values = points.at(current), values[current]
    if len(points):
        words = core.arena.words
        words[DIRTY] = 1
        for strategy in core.prioritized:
            strategy.update_priorities(points, values)
        words[DIRTY] = 0
    return len(points)


def as_priority(core: Core, priority: Any, length: int) -> float | Float64Array | None:
    """The priority given with a sequence: a number, or float64 [length].

    Raises:
        PriorityError: it is no priority, or nobody here keeps any.
    """
    if priority is None:
        return None
    _refuse_without(core)
    values = _as_priorities(priority)
    if values.ndim == 0:
        return float(values)
    if values.shape != (length,):
        raise PriorityError(
            f"priority has shape {values.shape}, the sequence {length} transitions; give one "
            "number, or one for each transition"
        )
    return values


def _as_priorities(priorities: Any) -> Float64Array:
    try:
        if isinstance(priorities, torch.Tensor):
            priorities = priorities.detach().to("cpu", torch.float64).numpy()
        values = np.asarray(priorities, np.float64)
    except (TypeError, ValueError) as error:
        raise PriorityError(
            f"priorities are {priorities!r:.60}, which are no numbers ({error}); give an array"
        ) from error
    if not ((values >= 0) & (values <= MOST_PRIORITY)).all():  # false for NaN too
        place = np.argwhere(~((values >= 0) & (values <= MOST_PRIORITY)))[0]
        where = f" at {tuple(place.tolist())}" if values.ndim else ""
        raise PriorityError(
            f"priority{where} is {values[tuple(place)]}; give numbers from 0 to {MOST_PRIORITY:g}, "
            "for example the absolute values of the errors"
        )
    return values


def _refuse_without(core: Core) -> None:
    if not core.prioritized:
        raise PriorityError(
            f"neither {type(core.sampler).__name__} nor {type(core.ejector).__name__} keeps "
            "priorities; make the table with sampler=PrioritizedSampleStrategy()"
        )
