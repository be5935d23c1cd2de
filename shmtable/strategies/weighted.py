"""What the samplers have in common that draw by weight: with a sum tree over rows or slots."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.index import IndexView
from shmtable.index import fields as f
from shmtable.strategies.base import SampleStrategy, StateSpec
from shmtable.strategies.trees import Float64Array, SumTree, tree_states
from shmtable.types import Int64Array, SamplePoints

# Below this share of hits, what is on offer is counted instead of tried.
_FEW = 0.05


class WeightedSampleStrategy(SampleStrategy):
    """Draws windows by weight: that of their first transition's row, or of their sequence.

    A subclass keeps the tree's leaves: a weight for every row or slot of a live sequence, 0 for
    all others. A sequence's weight is shared evenly among the windows that it offers.

    Args:
        per: what has a weight, a "row" or a "slot".
    """

    def __init__(self, per: str) -> None:
        self._per_slot = per == "slot"

    def states(self) -> tuple[StateSpec, ...]:
        """See ``Strategy``."""
        return tree_states("weight", "slot" if self._per_slot else "row")

    def bind(self, view: IndexView, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """See ``Strategy``."""
        super().bind(view, arrays)
        self._tree = SumTree(arrays, "weight")

    @abstractmethod
    def rebuild(self) -> None:
        """Put the leaves right, and call ``_rebuild_tree``."""

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        """See the class; O(count * log(items)), and O(sequences) where few windows fit."""
        parts = [self._draw(count, sequence_length, random, stratified=True)]
        missing = count - len(parts[0])
        share = len(parts[0]) / count
        while missing > 0 and share > _FEW:
            tries = int(missing / share * 1.06) + 8
            parts.append(self._draw(tries, sequence_length, random))
            kept = len(parts[-1])
            missing, share = missing - kept, kept / tries
        if missing > 0:
            parts.append(self._draw_counted(missing, sequence_length, random))
        found = parts[0] if len(parts) == 1 else SamplePoints.joined(parts)
        return found if len(found) <= count else found.at(slice(count))

    def _draw(
        self, count: int, steps: int, random: np.random.Generator, *, stratified: bool = False
    ) -> SamplePoints:
        """Up to ``count`` windows: those draws that a whole window follows."""
        view = self.view
        places, weights, total = self._tree.draw(count, self._size(), random, stratified=stratified)
        slots = places if self._per_slot else view.row_slot.take(places).astype(np.int64)
        records = view.slots.take(slots, 0)
        kept = weights > 0
        if steps > 1 or self._per_slot:
            room = records[:, f.LENGTH] - steps  # the last window's offset
            if view.short:
                np.maximum(room, 0, out=room)
        if self._per_slot:
            kept &= room >= 0
            room += 1
            np.maximum(room, 1, out=room)
            offsets = (random.random(count) * room).astype(np.int64)
            weights = weights / room
        else:
            # A leaf that is not 0 belongs to a live sequence: only its end can be in the way.
            offsets = places - records[:, f.START]
            if steps > 1:
                kept &= offsets <= room
        points = view.points(slots, offsets, records, weights / (total or 1.0))
        return points if kept.all() else points.at(kept.nonzero()[0])

    def _draw_counted(self, count: int, steps: int, random: np.random.Generator) -> SamplePoints:
        """The exact draw for when few windows fit."""
        slots, offsets, weights = self._on_offer(steps)
        sums = np.cumsum(weights)
        if not len(sums) or sums[-1] <= 0:
            return self.view.points(slots[:0], slots[:0], chances=weights[:0])
        drawn = sums.searchsorted(random.random(count) * sums[-1], side="right")
        np.minimum(drawn, len(sums) - 1, out=drawn)
        slots, weights = slots[drawn], weights[drawn]
        if self._per_slot:
            counts = self.view.window_counts(slots, steps)
            offsets = (random.random(count) * counts).astype(np.int64)
            weights = weights / counts
        else:
            offsets = offsets[drawn]
        chances = weights / self._tree.total(self._size())
        return self.view.points(slots, offsets, chances=chances)

    def _on_offer(self, steps: int) -> tuple[Int64Array, Int64Array, Float64Array]:
        """Slot, offset (0 if per slot) and weight of all there is to draw."""
        view = self.view
        slots = view.live_slots()
        counts = view.window_counts(slots, steps)
        slots, counts = slots[counts > 0], counts[counts > 0]
        if self._per_slot:
            return slots, np.zeros_like(slots), self._tree.leaves[slots]
        firsts = np.cumsum(counts) - counts
        offsets = np.arange(int(counts.sum())) - np.repeat(firsts, counts)
        starts = np.repeat(view.slots[slots, f.START], counts)
        return np.repeat(slots, counts), offsets, self._tree.leaves[starts + offsets]

    def _extent(self, slot: int, start: int, length: int) -> tuple[int, int]:
        """The leaves of a sequence: the first, and the one after the last."""
        return (slot, slot + 1) if self._per_slot else (start, start + length)

    def _size(self) -> int:
        """No leaf at or above is in use."""
        return self.view.slot_high if self._per_slot else self.view.row_high

    def _rebuild_tree(self, places: Int64Array, weights: Any) -> int:
        """Make the whole tree anew: these leaves, and 0 for all others; returns how many leaves."""
        # Also those beyond what is in use now: what was there before must not come back.
        size = self.view.slot_high if self._per_slot else self.view.reserved_rows
        self._tree.reset(size, places, weights)
        return size
