"""An index in plain memory: no arena, no lock, nothing to close."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import FrameType

import numpy as np
import torch

from shmtable.index import Arrays, Index, Layout, Request, Reservation
from shmtable.index import fields as f
from shmtable.index.layout import MINIMUM_BUCKETS
from shmtable.shm import process
from shmtable.shm.header import ID_LOW
from shmtable.types import Int64Array

HEADER_BYTES = 4096
_IDS = itertools.count(1)


class World:
    """An index with room for ``maxlen`` transitions, all of its memory reserved.

    Attributes:
        index, arrays, words: the parts.
        rung: how often waiters were told to look again.
        tracked, forgotten: what the strategies were told, as (slot, start, length).
        rebuilt: how often they were told to derive everything afresh.
    """

    def __init__(
        self, maxlen: int = 1000, max_sequences: int | None = None, *, extra_rows: int = 1
    ) -> None:
        layout = Layout.plan(
            first_byte=HEADER_BYTES,
            factor=1,
            maxlen=maxlen,
            max_sequences=max_sequences or maxlen,
            extra_rows=extra_rows,
            arrays=[],
        )
        self.memory = torch.from_numpy(np.zeros(layout.total_bytes, np.uint8))
        self.words = memoryview(self.memory[:HEADER_BYTES].numpy()).cast("q")
        self.arrays = Arrays(self.memory, self.words, layout)
        words = self.words
        words[ID_LOW] = next(_IDS)
        words[f.MAXLEN], words[f.MAX_SEQUENCES] = maxlen, max_sequences or maxlen
        words[f.RESERVED_ROWS] = layout.capacity_rows
        words[f.RESERVED_SLOTS] = layout.capacity_slots
        words[f.RESERVED_BUCKETS] = len(self.arrays.bucket_words)
        words[f.BUCKETS] = MINIMUM_BUCKETS
        words[f.SLOT_HIGH] = 1
        self.rung = self.rebuilt = 0
        self.tracked: list[tuple[int, int, int]] = []
        self.forgotten: list[tuple[int, int, int]] = []
        self.index = Index(
            self.arrays,
            extra_rows=extra_rows,
            ring=self._ring,
            track=lambda *told: self.tracked.append(told),
            forget=lambda *told: self.forgotten.append(told),
            rebuild=self._rebuild,
        )

    def _ring(self) -> None:
        self.rung += 1

    def _rebuild(self) -> None:
        self.rebuilt += 1

    def reserve(
        self,
        identity: int,
        length: int,
        *,
        span: int | None = None,
        replace: bool = False,
        victims: Callable[[int], Int64Array] | None = None,
        caller: FrameType | None = None,
    ) -> Reservation:
        """Reserve, and have it served at once; the caller of this is who has to finish it."""
        request = Request(identity, length, length if span is None else span, 0, replace)
        outcome = self.index.reserve_locked(
            request, victims or self.oldest, caller or sys._getframe(1)
        )
        assert isinstance(outcome, Reservation), outcome
        return outcome

    def commit(self, reservation: Reservation) -> int:
        """What a writer does: the row map, then the commit. Returns the slot."""
        slot, start = reservation.slot, reservation.start
        length = self.field(slot, f.LENGTH)
        self.arrays.row_slot[start : start + length] = slot
        self.index.commit_locked(reservation)
        return slot

    def load(self, identity: int, length: int) -> int:
        """Have a slot for a sequence read from a file, with its rows; returns the slot."""
        request = Request(identity, length, length, 0, False)
        outcome = self.index.load_locked([request], sys._getframe(1))
        assert isinstance(outcome, list), outcome
        (loaded,) = outcome
        self.arrays.row_slot[loaded.start : loaded.start + length] = loaded.slot
        return loaded.slot

    def add(self, identity: int, length: int, *, span: int | None = None) -> int:
        """Reserve and commit; returns the slot."""
        return self.commit(self.reserve(identity, length, span=span, caller=sys._getframe()))

    def oldest(self, transitions: int) -> Int64Array:
        """First in, first out, from the slot table."""
        live = self.slots_in(f.LIVE)
        live = live[np.argsort(self.arrays.slots[live, f.ORDER])]
        freed = np.cumsum(self.arrays.slots[live, f.LENGTH])
        return live[: np.searchsorted(freed, transitions) + 1]

    def field(self, slot: int, field: int) -> int:
        """One field of a slot's record."""
        return int(self.arrays.slots[slot, field])

    def set(self, slot: int, field: int, value: int) -> None:
        """Overwrite one field of a slot's record."""
        self.arrays.slots[slot, field] = value

    def slots_in(self, state: int) -> Int64Array:
        """int64 [n], the slots in this state."""
        states = self.arrays.slots[: self.words[f.SLOT_HIGH], f.STATE]
        return np.flatnonzero(states == state)

    def orphan(self, slot: int) -> None:
        """Make a slot that of a process that has ended: it had our number, long before us."""
        self.arrays.notes[slot, f.OWNER_START] = process.current().start + 1

    def identities(self) -> list[int]:
        """Live identities by order of their commit, from the slot table alone."""
        live = self.slots_in(f.LIVE)
        records = self.arrays.slots[live]
        return [int(i) for i in records[np.argsort(records[:, f.ORDER]), f.IDENTITY]]


def churned(seed: int, *, writing: int = 3, replaced: int = 0) -> World:
    """A world after random adds and removals: gaps, free slots, slots still being written.

    Args:
        seed: of the random choices.
        writing: sequences that are new and being written.
        replaced: sequences that are live, and being written anew.
    """
    random = np.random.default_rng(seed)
    world = World(2000)
    for identity in range(150):
        length = int(random.integers(1, 40))
        world.add(identity, length, span=length + int(random.integers(0, 2)))
        if identity % 2:
            live = world.slots_in(f.LIVE)
            world.index.eject_locked([int(random.choice(live))])
    for identity in world.identities()[:replaced]:
        world.reserve(identity, 5, replace=True)
    for identity in range(1000, 1000 + writing):
        world.reserve(identity, int(random.integers(1, 20)))
    world.index.eject_locked(random.choice(world.slots_in(f.LIVE), 20, replace=False).tolist())
    return world
