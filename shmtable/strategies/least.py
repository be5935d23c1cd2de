"""By priority, the other way round: what taught the learner least goes first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.index import IndexView
from shmtable.strategies.base import EjectionStrategy, StateSpec
from shmtable.strategies.priorities import MOST_PRIORITY, believed, mixed, within
from shmtable.strategies.trees import Float64Array, MinTree, tree_states
from shmtable.types import Int64Array, SamplePoints

# Added to a priority in the tree, where 0 stands for "no sequence".
_ABOVE_ZERO = 1e-300


class LowestPriorityEjectionStrategy(EjectionStrategy):
    """Removes the sequences of the lowest priority first.

    A sequence's priority is what ``table.update_priorities`` said last of one of its windows; of
    priorities per transition, ``eta * max + (1 - eta) * mean``. A new sequence has the one given to
    ``add_sequence``, or the highest seen so far (1 at first). O(log(sequences)) for each removed.

    Args:
        eta: 0 to 1.

    Raises:
        SpecError: a setting that cannot be.
    """

    takes_priorities = True

    def __init__(self, eta: float = 0.9) -> None:
        self._eta = within("eta", eta, 1.0)

    def config(self) -> dict[str, Any]:
        """See ``Strategy``."""
        return {"eta": self._eta}

    def states(self) -> tuple[StateSpec, ...]:
        """See ``Strategy``."""
        return (
            StateSpec("priority", "slot", "float64"),
            StateSpec("highest", "table", "float64"),
            *tree_states("order", "slot"),
        )

    def bind(self, view: IndexView, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """See ``Strategy``."""
        super().bind(view, arrays)
        self._priority: Float64Array = arrays["priority"]
        self._highest: Float64Array = arrays["highest"]
        self._tree = MinTree(arrays, "order")

    def initialise(self) -> None:
        """See ``Strategy``."""
        self._highest[0] = 1.0

    def receive(self, slot: int, start: int, length: int, priority: Any) -> None:
        """See ``Strategy``."""
        if isinstance(priority, np.ndarray):
            priority = mixed(priority[None], self._eta)[0]
        self._priority[slot] = math.nan if priority is None else priority

    def track(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        if math.isnan(self._priority[slot]):
            self._priority[slot] = self._highest[0]
        self._highest[0] = max(self._highest[0], self._priority[slot])
        self._tree.fill(slot, slot + 1, self._priority[slot] + _ABOVE_ZERO)

    def forget(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        self._tree.fill(slot, slot + 1, 0.0)

    def rebuild(self) -> None:
        """See ``Strategy``."""
        slots = self.view.live_slots()
        priorities = believed(self._priority, slots, float(self._highest[0]))
        self._tree.reset(self.view.slot_high, slots, priorities + _ABOVE_ZERO)

    def update_priorities(self, points: SamplePoints, priorities: Float64Array) -> None:
        """See ``Strategy``."""
        self._highest[0] = max(self._highest[0], np.fmax.reduce(priorities, axis=None))
        self._priority[points.slots] = mixed(priorities, self._eta)
        # Read back: where a slot occurs twice, its leaf must be that of its priority.
        self._tree.put(points.slots, self._priority[points.slots] + _ABOVE_ZERO)

    def state(self) -> dict[str, Any]:
        """See ``Strategy``."""
        return {"highest": float(self._highest[0])}

    def load_state(self, state: dict[str, Any]) -> None:
        """See ``Strategy``."""
        self._highest[0] = max(self._highest[0], within("highest", state["highest"], MOST_PRIORITY))

    def sample(self, count: int, random: np.random.Generator) -> Int64Array:
        """See the class."""
        chosen: list[int] = []
        freed = 0
        for slot in self._tree.ascending(self.view.slot_high):
            chosen.append(slot)
            freed += self.view.length(slot)
            if freed >= count:
                break
        return np.array(chosen, np.int64)
