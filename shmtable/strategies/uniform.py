"""Every window, or every sequence, equally likely."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shmtable.index import fields as f
from shmtable.strategies.base import EjectionStrategy, SampleStrategy
from shmtable.types import Int64Array, SamplePoints

# Below this share of hits another way of drawing is cheaper.
_FEW = 0.05
# Above this ratio of mean to greatest length, sequences count as about equally long.
_EVEN = 0.85

_Way = Callable[[int, int, np.random.Generator], tuple[Int64Array, Int64Array]]


def _below(bound: int, count: int, random: np.random.Generator) -> Int64Array:
    """int64 [count], each 0 up to ``bound`` - 1.

    Scaled doubles take half the time of ``Generator.integers``; with bounds far below 2**53 no
    value is favoured by more than one part in 2**53 / bound, and none reaches the bound.
    """
    return (random.random(count) * bound).astype(np.int64)


def _pairs_below(
    first: int, second: int, count: int, random: np.random.Generator
) -> tuple[Int64Array, Int64Array]:
    """Two int64 [count], independent, below their bounds: out of one double each.

    The whole part of a scaled double is the first, what is left of it, scaled, the second; the
    product of the bounds is far below 2**53.
    """
    numbers = random.random(count)
    numbers *= first
    whole = numbers.astype(np.int64)
    numbers -= whole
    numbers *= second
    return whole, numbers.astype(np.int64)


class UniformSampleStrategy(SampleStrategy):
    """Draws uniformly over windows: every window of the length asked for is equally likely.

    So a long sequence is drawn in proportion to the windows it offers, and no transition is
    favoured for belonging to a short one. Windows are drawn with replacement.

    Each draw is by rejection, in O(1) whatever the table's size, in one of two ways: a row is
    drawn, and kept when a whole window starts there; or a sequence and an offset, kept when the
    sequence has such a window. The first suits sequences of mixed lengths, the second those of
    about the same length, and windows almost as long as the sequences. Where both find little (a
    few long sequences among many short ones, and long windows) all windows are counted.
    """

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        """See the class; O(count), or O(sequences) in the rare last case."""
        # Every draw kept is uniform over the windows, whichever way it was made, so the parts may
        # be put together and cut off at ``count``.
        parts: list[tuple[Int64Array, Int64Array]] = []
        missing = count
        for draw in self._ways():
            share = 1.0  # of the draws that are kept: seen by trying
            while missing > 0 and share > _FEW:
                tries = int(missing / share * 1.06) + 8
                parts.append(draw(tries, sequence_length, random))
                missing -= len(parts[-1][0])
                share = len(parts[-1][0]) / tries
        if missing > 0:
            parts.append(self._by_count(missing, sequence_length, random))
        slots, offsets = parts[0]
        if len(parts) > 1:
            slots = np.concatenate([part[0] for part in parts])
            offsets = np.concatenate([part[1] for part in parts])
        return self.view.points(slots[:count], offsets[:count])

    def _ways(self) -> tuple[_Way, _Way]:
        """The likelier way first: drawing sequences is the cheaper one where most are as long."""
        view = self.view
        if view.live_steps > _EVEN * view.live_count * view.longest:
            return self._by_sequence, self._by_row
        return self._by_row, self._by_sequence

    def _by_row(
        self, tries: int, steps: int, random: np.random.Generator
    ) -> tuple[Int64Array, Int64Array]:
        view = self.view
        rows = _below(view.row_high, tries, random)
        slots = view.row_slot.take(rows).astype(np.int64)
        records = view.slots.take(slots, axis=0)
        offsets = rows - records[:, f.START]
        room = records[:, f.LENGTH] - steps
        if view.short:
            np.maximum(room, 0, out=room)
        # The row map is a hint: only a live slot whose extent has the row counts. The sign of
        # the "or" is that of a negative one among the two: 0 <= offset <= room.
        room -= offsets
        room |= offsets
        kept = ((room >= 0) & (records[:, f.STATE] == f.LIVE)).nonzero()[0]
        return slots[kept], offsets[kept]

    def _by_sequence(
        self, tries: int, steps: int, random: np.random.Generator
    ) -> tuple[Int64Array, Int64Array]:
        view = self.view
        most = max(view.longest - steps + 1, 1)
        places, offsets = _pairs_below(view.live_count, most, tries, random)
        slots = view.live.take(places)
        kept = (offsets < view.window_counts(slots, steps)).nonzero()[0]
        if len(kept) == tries:  # sequences of one length: nothing to leave out
            return slots, offsets
        return slots[kept], offsets[kept]

    def _by_count(
        self, count: int, steps: int, random: np.random.Generator
    ) -> tuple[Int64Array, Int64Array]:
        slots = self.view.live_slots()
        ends = np.cumsum(self.view.window_counts(slots, steps))
        if ends[-1] == 0:
            return slots[:0], slots[:0]
        windows = _below(int(ends[-1]), count, random)
        places = np.searchsorted(ends, windows, side="right")
        # Counted from the end of the sequence's windows, which is as uniform as from its start.
        return slots[places], ends[places] - 1 - windows


class UniformEjectionStrategy(EjectionStrategy):
    """Removes sequences drawn uniformly, each equally likely whatever its length."""

    def sample(self, count: int, random: np.random.Generator) -> Int64Array:
        """Draw without replacement until ``count`` transitions are covered."""
        view = self.view
        chosen: dict[int, None] = {}
        freed = 0
        while freed < count:
            if len(chosen) > view.live_count // 2:
                # Most draws would hit what is chosen already.
                return self._and_shuffled_rest(list(chosen), count - freed, random)
            slot = int(view.live[random.integers(view.live_count)])
            if slot not in chosen:
                chosen[slot] = None
                freed += view.length(slot)
        return np.array(list(chosen), np.int64)

    def _and_shuffled_rest(
        self, chosen: list[int], count: int, random: np.random.Generator
    ) -> Int64Array:
        rest = random.permutation(np.setdiff1d(self.view.live_slots(), chosen))
        freed = np.cumsum(self.view.slots[rest, f.LENGTH])
        return np.append(np.array(chosen, np.int64), rest[: np.searchsorted(freed, count) + 1])
