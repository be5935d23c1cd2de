"""Which slot holds an identity: a hash map in shared memory.

Open addressing with linear probing; a bucket holds a slot number, the key is read from the slot.
An identity may stand in it twice for a while: its live sequence, and the one being written to
replace it. Derived from the slot table.
"""

from __future__ import annotations

import numpy as np

from shmtable.index import fields as f
from shmtable.types import Int64Array

# 2^64 divided by the golden ratio spreads consecutive keys evenly (Knuth, volume 3, section 6.4).
_FACTOR = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class Identities:
    """The identity map. Every method needs the table lock.

    Args:
        words: the header's counters.
        slots: int64 words of the slot records.
        buckets: int64 words of the ``buckets`` region.
    """

    def __init__(self, words: memoryview, slots: memoryview, buckets: memoryview) -> None:
        self._words = words
        self._slots = slots
        self._buckets = buckets

    @staticmethod
    def _home(identity: int, mask: int) -> int:
        return ((identity * _FACTOR) & _MASK) >> (64 - mask.bit_length())

    def find_locked(self, identity: int) -> tuple[int, int]:
        """The slots of an identity as (LIVE, WRITING); 0 for none."""
        slots, buckets = self._slots, self._buckets
        mask = self._words[f.BUCKETS] - 1
        place = self._home(identity, mask)
        live = writing = 0
        while slot := buckets[place]:
            base = slot * f.SLOT_WORDS
            if slots[base + f.IDENTITY] == identity:
                if slots[base + f.STATE] == f.LIVE:
                    live = slot
                else:
                    writing = slot
            place = (place + 1) & mask
        return live, writing

    def insert_locked(self, identity: int, slot: int) -> None:
        """Enter ``slot``; the caller has seen to it that the map is at most half full."""
        buckets = self._buckets
        mask = self._words[f.BUCKETS] - 1
        place = self._home(identity, mask)
        while buckets[place]:
            place = (place + 1) & mask
        buckets[place] = slot

    def remove_locked(self, identity: int, slot: int) -> None:
        """Take ``slot`` out and close the hole, so that no later entry becomes unreachable."""
        slots, buckets = self._slots, self._buckets
        mask = self._words[f.BUCKETS] - 1
        hole = self._home(identity, mask)
        while buckets[hole] != slot:
            hole = (hole + 1) & mask
        place = hole
        while moving := buckets[place := (place + 1) & mask]:
            home = self._home(slots[moving * f.SLOT_WORDS + f.IDENTITY], mask)
            # It may move into the hole unless its home lies behind the hole, on the way here.
            if (place - home) & mask >= (place - hole) & mask:
                buckets[hole] = moving
                hole = place
        buckets[hole] = 0

    def rebuild_locked(self, occupied: Int64Array, capacity: int) -> None:
        """Recompute the map, with ``capacity`` buckets (a power of two), from the slot table."""
        words = np.frombuffer(self._slots, np.int64).reshape(-1, f.SLOT_WORDS)
        buckets = np.frombuffer(self._buckets, np.int64)
        buckets[:capacity] = 0
        self._words[f.BUCKETS] = capacity
        keys = words[occupied, f.IDENTITY].astype(np.uint64)
        shift = np.uint64(64 - (capacity.bit_length() - 1))
        places = ((keys * np.uint64(_FACTOR)) >> shift).astype(np.int64)
        # All try their place at once; where several meet one wins and the others go on.
        while len(occupied):
            empty = buckets[places] == 0
            buckets[places[empty]] = occupied[empty]
            lost = buckets[places] != occupied
            occupied = occupied[lost]
            places = (places[lost] + 1) & (capacity - 1)
