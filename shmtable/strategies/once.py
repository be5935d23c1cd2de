"""Without replacement: every window once, before any comes again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.index import IndexView
from shmtable.strategies.base import StateSpec
from shmtable.strategies.weighted import WeightedSampleStrategy
from shmtable.types import Int64Array, SamplePoints

# Below this share of hits, what is left is counted instead of tried.
_FEW = 0.05


class WithoutReplacementSampleStrategy(WeightedSampleStrategy):
    """Draws uniformly among the windows that have not been handed out in this pass.

    All processes share the pass: no window goes out twice in it. When fewer are left than a sample
    asks for, those are skipped and the next pass begins; sequences added meanwhile are part of the
    present pass. Windows are told apart by where they start, and count as handed out from the draw
    on, even if the call is then cut off. A sample of more windows than the table offers has to
    repeat some.

    O(count * log(transitions)); O(transitions) once a pass, and near its end.
    """

    # ``done`` says in which pass a row's window was last handed out. The leaves follow from it and
    # from ``pass``: 1 for a live row that is still due. ``leaf_pass`` is the pass they were made
    # for, -1 while they are being made, so that whoever finds them unfinished makes them again.

    def __init__(self) -> None:
        super().__init__("row")

    def states(self) -> tuple[StateSpec, ...]:
        """See ``Strategy``."""
        own = (
            StateSpec("done", "row", "int64", derived=True),
            StateSpec("pass", "table", "int64"),
            StateSpec("leaf_pass", "table", "int64"),
        )
        return (*own, *super().states())

    def bind(self, view: IndexView, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """See ``Strategy``."""
        super().bind(view, arrays)
        self._done: Int64Array = arrays["done"]
        self._pass: Int64Array = arrays["pass"]

    def initialise(self) -> None:
        """See ``Strategy``."""
        self._pass[0] = self.arrays["leaf_pass"][0] = 1

    def track(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        self._done[start : start + length] = 0
        self._tree.fill(start, start + length, 1.0)

    def forget(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        self._tree.fill(start, start + length, 0.0)

    def rebuild(self) -> None:
        """See ``Strategy``."""
        self.arrays["leaf_pass"][0] = -1
        number = int(self._pass[0])
        rows = self.view.live_rows()
        self._rebuild_tree(rows, self._done[rows] != number)
        self.arrays["leaf_pass"][0] = number

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        """See the class."""
        found = self._due(count, sequence_length, random)
        if len(found) < count and self._offers(sequence_length):
            # One store ends the pass; the leaves are made to follow.
            self._pass[0] += 1
            found = self._due(count, sequence_length, random)
        self._take(found.starts)
        if 0 < len(found) < count:
            found = found.at(np.arange(count) % len(found))
        return found

    def _offers(self, steps: int) -> bool:
        """Whether there is any window at all: a request that cannot be met ends no pass."""
        return bool(self.view.window_counts(self.view.live_slots(), steps).any())

    def _take(self, rows: Int64Array) -> None:
        """The windows that start in these rows are not due any more."""
        self.arrays["leaf_pass"][0] = -1
        self._done[rows] = self._pass[0]
        self._tree.put(rows, 0.0)
        self.arrays["leaf_pass"][0] = self._pass[0]

    def _due(self, count: int, steps: int, random: np.random.Generator) -> SamplePoints:
        """``count`` different windows that are due in this pass; all there are if fewer."""
        if self.arrays["leaf_pass"][0] != self._pass[0]:
            self.rebuild()
        found, share = self.view.points(*[self.view.live[:0]] * 2), 1.0
        while len(found) < count and share > _FEW:
            before = len(found)
            tries = int((count - before) * 1.06) + 8
            found = SamplePoints.joined([found, self._draw(tries, steps, random)])
            found = found.at(np.sort(_firsts(found)))  # as drawn
            share = (len(found) - before) / tries
        if len(found) >= count:
            return found.at(slice(count))
        slots, offsets, due = self._on_offer(steps)
        left = random.permutation(np.flatnonzero(due))[:count]
        return self.view.points(slots[left], offsets[left])


def _firsts(points: SamplePoints) -> Int64Array:
    """Where each window occurs first."""
    return np.unique(points.starts, return_index=True)[1]
