"""What a strategy may see of the index."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.index import fields as f
from shmtable.index.arrays import Arrays
from shmtable.types import Int64Array, SamplePoints, rows_of


class IndexView:
    """A read view of the index, valid while the table's lock is held.

    Attributes:
        slots: int64 [capacity, 8], the slot records; columns as in ``index.fields`` (STATE, START,
            LENGTH, ORDER, ...). Only entries that ``live``, ``row_slot`` or the lists lead to
            may be read: the rest of the address space is not there yet.
        notes: int64 [capacity, 8], the less used fields (STEPS_AT, ...).
        times_sampled: int64 [capacity], windows handed out of each slot's sequence; advisory.
        live: int64 [capacity], the LIVE slots in no particular order; ``live_count`` count.
        row_slot: int32 [rows], a hint at the slot a row belongs to, for rows below ``row_high``;
            to be checked against the slot's record.
        short: whether sequences shorter than a window may be sampled (the table pads them).
    """

    def __init__(self, arrays: Arrays, *, short: bool) -> None:
        self.slots = _read_only(arrays.slots)
        self.notes = _read_only(arrays.notes)
        self.times_sampled = _read_only(arrays.times_sampled)
        self.live = _read_only(arrays.live)
        self.row_slot = _read_only(arrays.row_slot)
        self.short = short
        self._words = arrays.words
        self._links = arrays.link_words
        self._slot_words = arrays.slot_words

    @property
    def live_count(self) -> int:
        """Number of live sequences."""
        return self._words[f.LIVE_COUNT]

    @property
    def live_steps(self) -> int:
        """Number of live transitions."""
        return self._words[f.LIVE_STEPS]

    @property
    def row_high(self) -> int:
        """Every row in use is below."""
        return self._words[f.ROW_HIGH]

    @property
    def slot_high(self) -> int:
        """Every slot in use is below."""
        return self._words[f.SLOT_HIGH]

    @property
    def reserved_rows(self) -> int:
        """Rows whose memory is there: no row at or above may be touched."""
        return self._words[f.RESERVED_ROWS]

    @property
    def longest(self) -> int:
        """No live sequence is longer (one as long need not be live any more)."""
        return self._words[f.LONGEST]

    def oldest(self) -> int:
        """The live slot of the lowest order; 0 for none."""
        return self._links[f.NEWER]

    def newest(self) -> int:
        """The live slot of the highest order; 0 for none."""
        return self._links[f.OLDER]

    def newer(self, slot: int) -> int:
        """The next live slot by order; 0 behind the newest."""
        return self._links[slot * f.LINK_WORDS + f.NEWER]

    def older(self, slot: int) -> int:
        """The live slot before by order; 0 before the oldest."""
        return self._links[slot * f.LINK_WORDS + f.OLDER]

    def length(self, slot: int) -> int:
        """Transitions of the slot's sequence."""
        return self._slot_words[slot * f.SLOT_WORDS + f.LENGTH]

    def live_slots(self) -> Int64Array:
        """int64 [live_count], the live slots; a view, in no particular order."""
        return self.live[: self._words[f.LIVE_COUNT]]

    def live_rows(self) -> Int64Array:
        """int64 [live_steps], the rows of all live transitions; O(transitions)."""
        records = self.slots[self.live_slots()]
        return rows_of(records[:, f.START], records[:, f.LENGTH])

    def window_counts(self, slots: Int64Array, steps: int) -> Int64Array:
        """How many windows of ``steps`` transitions each slot's sequence offers: int64, like slots.

        A shorter sequence offers none, or exactly one where the table pads.
        """
        counts: Int64Array = self.slots.take(slots, axis=0)[:, f.LENGTH] - (steps - 1)
        return np.maximum(counts, 1 if self.short else 0, out=counts)

    def steps_since(self, slots: Int64Array) -> Int64Array:
        """How many transitions were added to the table after each slot's sequence.

        Needs no lock for slots that were live under it before: a slot's count is constant while
        it is live, and the table's total had reached it when that lock was let go, and only rises.

        Returns:
            int64, like ``slots``.
        """
        since: Int64Array = self._words[f.STEP_TOTAL] - self.notes[slots, f.STEPS_AT]
        return since

    def points(
        self,
        slots: Int64Array,
        offsets: Int64Array,
        records: Int64Array | None = None,
        chances: npt.NDArray[np.float64] | None = None,
    ) -> SamplePoints:
        """Sample points for windows at ``offsets`` of ``slots`` (int64 [B] each).

        Args:
            slots: the windows' slots.
            offsets: first transition of each within its sequence.
            records: int64 [B, 8], ``self.slots.take(slots, axis=0)``, where it is at hand.
            chances: see ``SamplePoints``.
        """
        if records is None:
            records = self.slots.take(slots, axis=0)
        fields = records.T
        return SamplePoints(
            slots,
            offsets,
            fields[f.GENERATION],
            fields[f.IDENTITY],
            fields[f.START] + offsets,
            fields[f.LENGTH],
            chances,
        )


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
