"""By coverage: what has been sampled least is sampled next, and what most may go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.index import IndexView
from shmtable.index import fields as f
from shmtable.strategies.base import EjectionStrategy, StateSpec
from shmtable.strategies.priorities import within
from shmtable.strategies.trees import SumTree, tree_states
from shmtable.strategies.weighted import WeightedSampleStrategy
from shmtable.types import Int64Array, SamplePoints

_MOST_ALPHA = 8.0
_AT_ONCE = 4  # victims drawn together: mostly the first one is enough


class CoverageSampleStrategy(WeightedSampleStrategy):
    """Draws sequences with chances in proportion to ``(times sampled + 1) ** -alpha``.

    A sequence's times are the windows of it that have been handed out, by whatever process; the
    weights follow at once. Its windows are equally likely.

    Args:
        alpha: how strongly it prefers what has been sampled least, 0 (not at all) to 8.

    Raises:
        SpecError: a setting that cannot be.
    """

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__("slot")
        self._alpha = within("alpha", alpha, _MOST_ALPHA)

    def config(self) -> dict[str, Any]:
        """See ``Strategy``."""
        return {"alpha": self._alpha}

    def track(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        self._tree.fill(slot, slot + 1, 1.0)  # not sampled yet

    def forget(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        self._tree.fill(slot, slot + 1, 0.0)

    def on_sample(self, points: SamplePoints, sequence_length: int) -> None:
        """See ``Strategy``."""
        self._tree.put(points.slots, self._weight(points.slots))

    def rebuild(self) -> None:
        """See ``Strategy``."""
        slots = self.view.live_slots()
        self._rebuild_tree(slots, self._weight(slots))

    def _weight(self, slots: Int64Array) -> Any:
        return _uses(self.view, slots) ** -self._alpha


class CoverageEjectionStrategy(EjectionStrategy):
    """Removes sequences with chances in proportion to ``(times sampled + 1) ** alpha``.

    What has been used most goes first, as a tendency; nothing stays for ever.

    Args:
        alpha: how strongly it prefers what has been sampled most, 0 (not at all) to 8.

    Raises:
        SpecError: a setting that cannot be.
    """

    def __init__(self, alpha: float = 0.5) -> None:
        self._alpha = within("alpha", alpha, _MOST_ALPHA)

    def config(self) -> dict[str, Any]:
        """See ``Strategy``."""
        return {"alpha": self._alpha}

    def states(self) -> tuple[StateSpec, ...]:
        """See ``Strategy``."""
        return tree_states("weight", "slot")

    def bind(self, view: IndexView, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """See ``Strategy``."""
        super().bind(view, arrays)
        self._tree = SumTree(arrays, "weight")

    def track(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        self._tree.fill(slot, slot + 1, 1.0)

    def forget(self, slot: int, start: int, length: int) -> None:
        """See ``Strategy``."""
        self._tree.fill(slot, slot + 1, 0.0)

    def on_sample(self, points: SamplePoints, sequence_length: int) -> None:
        """See ``Strategy``."""
        self._tree.put(points.slots, self._weight(points.slots))

    def rebuild(self) -> None:
        """See ``Strategy``."""
        slots = self.view.live_slots()
        self._tree.reset(self.view.slot_high, slots, self._weight(slots))

    def sample(self, count: int, random: np.random.Generator) -> Int64Array:
        """Draw without replacement until ``count`` transitions are covered."""
        view = self.view
        chosen: dict[int, None] = {}
        freed = 0
        before = -1
        while freed < count:
            if len(chosen) == before or len(chosen) > view.live_count // 2:
                # Most draws would hit what is chosen already: the rest by the same rule, at once.
                return self._and_more(list(chosen), count - freed, random)
            before = len(chosen)
            slots, weights, _ = self._tree.draw(_AT_ONCE, view.slot_high, random)
            for slot, weight in zip(slots.tolist(), weights.tolist(), strict=True):
                if weight > 0 and slot not in chosen and freed < count:
                    chosen[slot] = None
                    freed += view.length(slot)
        return np.array(list(chosen), np.int64)

    def _and_more(self, chosen: list[int], count: int, random: np.random.Generator) -> Int64Array:
        rest = np.setdiff1d(self.view.live_slots(), chosen)
        # The smallest of exponential waiting times is a draw by weight; the next, the next draw.
        waits = random.exponential(size=len(rest)) / self._tree.leaves[rest]
        rest = rest[waits.argsort()]
        freed = np.cumsum(self.view.slots[rest, f.LENGTH])
        return np.append(np.array(chosen, np.int64), rest[: np.searchsorted(freed, count) + 1])

    def _weight(self, slots: Int64Array) -> Any:
        return _uses(self.view, slots) ** self._alpha


def _uses(view: IndexView, slots: Int64Array) -> Any:
    """Times sampled + 1, float64 [n]; at least 1, whatever a damaged file says."""
    return np.maximum(view.times_sampled[slots], 0) + 1.0
