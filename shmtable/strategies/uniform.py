"""Every window, or every sequence, equally likely."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shmtable.index import fields as f
from shmtable.strategies.base import EjectionStrategy, SampleStrategy
from shmtable.types import Int64Array, SamplePoints

# Below this share of hits another way of drawing is cheaper.
_FEW = 0.05
# No guess at the share of hits may be so low that the first draw is wastefully large.
_LEAST_GUESS = 0.25
# A draw of rows takes so much longer than one of sequences.
_ROW_COST = 1.2


class _Draws(NamedTuple):
    """Windows drawn: int64 [n] slots and offsets, and the slots' records, int64 [n, 8]."""

    slots: Int64Array
    offsets: Int64Array
    records: Int64Array


_Way = Callable[[int, int, np.random.Generator], _Draws]


def _below(bound: int, count: int, random: np.random.Generator) -> Int64Array:
    """int64 [count], each 0 up to ``bound`` - 1.

    Scaled doubles take half the time of ``Generator.integers``; with bounds far below 2**53 no
    value is favoured by more than one part in 2**53 / bound, and none reaches the bound.
    """
    numbers = random.random(count)
    numbers *= bound
    return numbers.astype(np.int64)


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

    # For how many offsets, sequences and windows the last pairs were drawn, and their bounds.
    _bounds: tuple[tuple[int, int, int], npt.NDArray[np.float64]] = (0, 0, 0), np.empty(0)

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        """See the class; O(count), or O(sequences) in the rare last case."""
        view = self.view
        longest, sequences = view.longest, view.live_count
        if sequence_length > longest and not view.short:
            none = view.live[:0]
            return view.points(none, none)
        if view.live_steps == sequences * longest:
            # All sequences are as long: every draw is kept.
            offsets = max(longest - sequence_length + 1, 1)
            return view.points(*self._pairs(offsets, sequences, count, random))
        # Every draw kept is uniform over the windows, whichever way it was made, so the parts may
        # be put together and cut off at ``count``.
        parts: list[_Draws] = []
        missing = count
        for draw, share in self._ways(sequence_length):
            while missing > 0 and share > _FEW:
                tries = missing if share == 1 else int(missing / share * 1.06) + 8
                parts.append(draw(tries, sequence_length, random))
                kept = len(parts[-1].slots)
                missing -= kept
                share = kept / tries  # seen by trying, after the first
        if missing > 0:
            parts.append(self._by_count(missing, sequence_length, random))
        draws = parts[0]
        if len(parts) > 1:
            draws = _Draws(*map(np.concatenate, zip(*parts, strict=True)))
        if len(draws.slots) > count:
            draws = _Draws(*(array[:count] for array in draws))
        return view.points(*draws)

    def _ways(self, steps: int) -> tuple[tuple[_Way, float], tuple[_Way, float]]:
        """Both ways to draw, the cheaper one first, and what share of its draws is kept."""
        view = self.view
        sequences = view.live_count
        # Exact where no sequence is shorter than a window, too low otherwise.
        windows = view.live_steps - sequences * (steps - 1)
        by_sequence = sequences * max(view.longest - steps + 1, 1)
        by_row = view.row_high
        ways = (
            (self._by_sequence, max(windows / by_sequence, _LEAST_GUESS)),
            (self._by_row, max(windows / by_row, _LEAST_GUESS)),
        )
        return ways if by_sequence <= by_row * _ROW_COST else ways[::-1]

    def _by_row(self, tries: int, steps: int, random: np.random.Generator) -> _Draws:
        view = self.view
        rows = _below(view.row_high, tries, random)
        slots = view.row_slot.take(rows).astype(np.int64)
        records = view.slots.take(slots, axis=0)
        offsets = rows - records[:, f.START]
        room = records[:, f.LENGTH] - steps  # the last window's offset
        if view.short:
            np.maximum(room, 0, out=room)
        # The row map is a hint: only a live slot whose extent has the row counts. The sign of
        # the "or" is that of a negative one among the two: 0 <= offset <= room.
        room -= offsets
        room |= offsets
        kept = ((room >= 0) & (records[:, f.STATE] == f.LIVE)).nonzero()[0]
        return _Draws(slots[kept], offsets[kept], records.take(kept, axis=0))

    def _by_sequence(self, tries: int, steps: int, random: np.random.Generator) -> _Draws:
        view = self.view
        most = max(view.longest - steps + 1, 1)
        slots, offsets, records = self._pairs(most, view.live_count, tries, random)
        room = records[:, f.LENGTH] - steps
        if view.short:
            np.maximum(room, 0, out=room)
        kept = (offsets <= room).nonzero()[0]
        return _Draws(slots[kept], offsets[kept], records.take(kept, axis=0))

    def _pairs(
        self, offsets: int, sequences: int, count: int, random: np.random.Generator
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Sequences, and offsets below a bound: slots, offsets and the slots' records."""
        known, bounds = self._bounds
        of = offsets, sequences, count
        if known != of:
            bounds = np.empty(2 * count)
            bounds[:count], bounds[count:] = offsets, sequences
            self._bounds = of, bounds
        # As ``_below``, but both at once, bounded by an array that is mostly there already.
        numbers = random.random(2 * count)
        numbers *= bounds
        whole = numbers.astype(np.int64)
        slots = self.view.live.take(whole[count:])
        return slots, whole[:count], self.view.slots.take(slots, 0)

    def _by_count(self, count: int, steps: int, random: np.random.Generator) -> _Draws:
        slots = self.view.live_slots()
        ends = np.cumsum(self.view.window_counts(slots, steps))
        if ends[-1] == 0:
            slots = slots[:0]
            return _Draws(slots, slots, self.view.slots.take(slots, axis=0))
        windows = _below(int(ends[-1]), count, random)
        places = np.searchsorted(ends, windows, side="right")
        slots = slots[places]
        # Counted from the end of the sequence's windows, which is as uniform as from its start.
        return _Draws(slots, ends[places] - 1 - windows, self.view.slots.take(slots, axis=0))


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
