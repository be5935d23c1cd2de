"""A small table with priorities, and the model of it: chances as the paper has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable import ArrayMemoryTable, Column, FifoEjectionStrategy, PrioritizedSampleStrategy
from shmtable.index import fields as f
from shmtable.types import SamplePoints
from tests.strategies.chance import p_value

MakeTable = Callable[..., ArrayMemoryTable]
Window = tuple[int, int]  # identity, offset
EPSILON = 1e-6


def narrow(make_table: MakeTable, *, maxlen: int = 300, **options: Any) -> ArrayMemoryTable:
    """One small column; options of the sampler, and of the table where it knows them."""
    of_table = {
        name: options.pop(name)
        for name in ("pad", "name", "directory", "max_sequences", "ejector", "sampler", "lock")
        if name in options
    }
    return make_table(
        **{
            "columns": [Column("actions", (), "int32")],
            "maxlen": maxlen,
            "sampler": PrioritizedSampleStrategy(**options),
            "ejector": FifoEjectionStrategy(),
            "seed": 5,
            **of_table,
        }
    )


def add(table: ArrayMemoryTable, identity: int, length: int, priority: Any = None) -> None:
    table.add_sequence(identity, {"actions": np.arange(length)}, priority=priority)


def points_at(table: ArrayMemoryTable, *windows: Window) -> SamplePoints:
    """Points of windows one wishes for."""
    core = table._core
    slots = core.view.live_slots()
    by_identity = dict(zip(core.arrays.slots[slots, f.IDENTITY].tolist(), slots, strict=True))
    found = np.array([by_identity[identity] for identity, _ in windows], np.int64)
    return core.view.points(found, np.array([offset for _, offset in windows], np.int64))


class Model:
    """What each transition's priority should be."""

    def __init__(self) -> None:
        self.sequences: dict[int, npt.NDArray[np.float64]] = {}
        self.highest = 1.0

    def add(
        self, table: ArrayMemoryTable, identity: int, length: int, priority: Any = None
    ) -> None:
        add(table, identity, length, priority)
        given = np.broadcast_to(self.highest if priority is None else priority, length)
        self.sequences[identity] = np.array(given, np.float64)
        self.highest = max(self.highest, float(given.max()))
        self.follow(table)

    def follow(self, table: ArrayMemoryTable) -> None:
        """Forget what the table has ejected."""
        left = set(table.identities().tolist())
        self.sequences = {i: p for i, p in self.sequences.items() if i in left}

    def update(self, points: SamplePoints, priorities: npt.NDArray[np.float64]) -> int:
        """The slow way, window by window; the number that are still there."""
        applied = 0
        values = np.reshape(priorities, (len(points), -1))
        for identity, offset, new in zip(
            points.identities.tolist(), points.offsets.tolist(), values, strict=True
        ):
            if identity not in self.sequences:
                continue
            own = self.sequences[identity][offset : offset + len(new)]
            own[:] = new[: len(own)]
            self.highest = max(self.highest, float(new[: len(own)].max()))
            applied += 1
        return applied

    def weights(
        self, steps: int, *, alpha: float = 0.6, padded: bool = False
    ) -> Mapping[Any, float]:
        """Window to what its chance is in proportion to."""
        return {
            (identity, offset): float((own[offset] + EPSILON) ** alpha)
            for identity, own in self.sequences.items()
            for offset in range(max(len(own) - steps + 1, 1 if padded else 0))
        }


def agreement(drawn: Iterable[Window], weights: Mapping[Window, float]) -> float:
    """See ``p_value``; what is drawn too seldom to tell counts as one."""
    drawn = list(drawn)
    seldom = 30 * sum(weights.values()) / len(drawn)
    rest = ("the", "rest")
    lumped: dict[Any, float] = {w: weight for w, weight in weights.items() if weight >= seldom}
    assert len(lumped) >= 3
    few = sum(weights.values()) - sum(lumped.values())
    if few >= seldom:
        lumped[rest] = few
    found = [window if window in lumped else rest for window in drawn]
    assert set(drawn) <= set(weights)
    return p_value([window for window in found if window in lumped], lumped)
