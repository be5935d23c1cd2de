"""The index of a table: who has which rows, in what state.

The slot table (``fields``: state, generation, identity, extent, order, owner) is the ground truth;
everything else (gaps, identity map, lists, counts) is derived from it and recomputed by
``rebuild_locked``, the only function that does so. A change becomes real with one store into a
slot's STATE:

- what describes the slot is stored before it, what is derived from it after;
- every exit from LIVE or WRITING raises GENERATION first and stores FREE second, so whoever saw
  the old generation can tell that the rows are no longer what they were;
- DIRTY is set before the first store and cleared after the last: whoever dies in between leaves
  it set, and the next one to take the lock rebuilds.

So a process may die after any store, and the survivors find the change either done or not begun.
Every method whose name ends in ``_locked`` needs the table lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple

import numpy as np

from shmtable.errors import DuplicateIdentityError, SlotLostError
from shmtable.index import fields as f
from shmtable.index.arrays import Arrays
from shmtable.index.extents import Extents
from shmtable.index.identities import Identities
from shmtable.index.layout import bucket_count, row_limit
from shmtable.index.owners import Reservations, owner_is_gone
from shmtable.index.rebuild import rebuild_locked
from shmtable.shm import process
from shmtable.shm.header import DIRTY
from shmtable.types import Int64Array


class Reservation(NamedTuple):
    """A WRITING slot of this process: the rows are ours to fill.

    ``replaces`` is the live slot that goes when this one is committed, with its generation; 0
    for none.
    """

    slot: int
    generation: int
    start: int
    length: int
    replaces: int
    replaced_generation: int


class Growth(NamedTuple):
    """What has to be reserved from the system before the request can be served."""

    rows: int
    slots: int
    buckets: int


@dataclass(frozen=True)
class Blocked:
    """The request must wait: what is in the way is being written by others."""

    reason: str


class Request(NamedTuple):
    """A sequence that wants room. ``extra``: bit i set, stored column i has one row more."""

    identity: int
    length: int
    span: int
    extra: int
    replace: bool


# The ejector, bound to its random generator: transitions to free -> live slots that free them.
Victims = Callable[[int], Int64Array]


class Index:
    """The slots of one table.

    Args:
        arrays: this process's views of the index.
        extra_rows: rows a sequence may have beyond its transitions.
        ring: bumps the word that waiters watch.
        track: tells the strategies of a slot about to become LIVE: (slot, start, length).
        forget: tells them of one that has left: (slot, start, length).
        rebuild: makes them recompute what they derive.
    """

    def __init__(
        self,
        arrays: Arrays,
        *,
        extra_rows: int,
        ring: Callable[[], None],
        track: Callable[[int, int, int], None],
        forget: Callable[[int, int, int], None],
        rebuild: Callable[[], None],
    ) -> None:
        self.arrays = arrays
        self.words = arrays.words
        self.extents = Extents(arrays.slot_words, arrays.link_words, arrays.bin_words)
        self.identities = Identities(arrays.words, arrays.slot_words, arrays.bucket_words)
        self.reservations = Reservations()
        self._extra_rows = extra_rows
        self.ring = ring
        self._track = track
        self._forget = forget
        self._rebuild_strategies = rebuild

    # -- reserve ---------------------------------------------------------------------------

    def reserve_locked(
        self, request: Request, victims: Victims, caller: FrameType
    ) -> Reservation | Growth | Blocked:
        """Give a sequence a slot and rows, ejecting what has to go.

        Everything is planned before the first store: a request that must wait, must grow the
        memory or is refused has changed nothing. ``caller`` is the frame that will commit or
        abort.

        Raises:
            DuplicateIdentityError: the identity is in the table, or being written.
        """
        live, writing = self.identities.find_locked(request.identity)
        if writing and owner_is_gone(self.arrays, writing):
            self.reclaim_locked([writing])
            writing = 0
        if (live or writing) and not request.replace:
            raise _duplicate(request.identity, bool(live))
        if writing:
            return Blocked(f"identity {request.identity} is being written by another process")
        leaving = self._plan_locked(request, live, victims)
        if isinstance(leaving, Blocked):
            return leaving
        growth = self._growth_locked(request.span, leaving)
        if growth is not None:
            return growth
        return self._store_reservation_locked(request, live, leaving, caller)

    def _plan_locked(self, request: Request, old: int, victims: Victims) -> list[int] | Blocked:
        """Choose who must go for the request to fit. ``old`` is kept: it is to be replaced."""
        words = self.words
        old_steps = self.arrays.slot_words[old * f.SLOT_WORDS + f.LENGTH] if old else 0
        need = words[f.LIVE_STEPS] + words[f.WRITING_STEPS] + request.length
        need -= old_steps + words[f.MAXLEN]
        sequences = words[f.LIVE_COUNT] + words[f.WRITING_COUNT] + (0 if old else 1)
        full = sequences > words[f.MAX_SEQUENCES]
        if need <= 0 and not full and self._locate_locked(request.span) >= 0:
            return []
        available = words[f.LIVE_STEPS] - old_steps
        blocked = Blocked("the room left is taken by sequences that others are writing")
        wanted = max(need, 1 if full else 0)
        while True:
            if wanted > available or (full and not available):
                return blocked
            leaving = self._ask_locked(victims, wanted, old, old_steps) if wanted else []
            if self._locate_locked(request.span) >= 0 or (
                self.extents.widest_locked(np.array(leaving), self._occupied(), self._row_limit())
                >= request.span
            ):
                return leaving
            if wanted == available:
                return blocked
            # Free rows enough, but nowhere in one piece: only more ejections can help.
            wanted = min(2 * max(wanted, request.span), available)

    def _ask_locked(self, victims: Victims, wanted: int, old: int, old_steps: int) -> list[int]:
        """The ejector's choice without ``old``, checked: a user may have written it."""
        slots = self.arrays.slot_words
        chosen: list[int] = victims(wanted).tolist()
        freed = 0
        if old in chosen:
            chosen = [slot for slot in victims(wanted + old_steps).tolist() if slot != old]
        for slot in chosen:
            if slots[slot * f.SLOT_WORDS + f.STATE] != f.LIVE:
                raise RuntimeError(f"the ejector chose slot {slot}, which is not live")
            freed += slots[slot * f.SLOT_WORDS + f.LENGTH]
        if freed < wanted or len(set(chosen)) != len(chosen):
            raise RuntimeError(
                f"the ejector freed {freed} transitions in {len(chosen)} slots, {wanted} were "
                "asked for: it must return distinct live slots that free at least as many"
            )
        return chosen

    def _growth_locked(self, span: int, leaving: list[int]) -> Growth | None:
        words = self.words
        node = self._locate_locked(span)
        # Where only the ejections make room, any row below the limit may be the place.
        rows = self._row_limit() if node < 0 else self.extents.end_locked(node) + span
        slots = words[f.SLOT_HIGH] + (0 if words[f.FREE_COUNT] or leaving else 1)
        buckets = bucket_count(words[f.LIVE_COUNT] + words[f.WRITING_COUNT] + 1)
        if (
            rows <= words[f.RESERVED_ROWS]
            and slots <= words[f.RESERVED_SLOTS]
            and buckets <= words[f.BUCKETS]
        ):
            return None
        return Growth(rows, slots, buckets)

    def _store_reservation_locked(
        self, request: Request, old: int, leaving: list[int], caller: FrameType
    ) -> Reservation:
        words, slots = self.words, self.arrays.slot_words
        owner = process.current()
        words[DIRTY] = 1
        if leaving:
            words[f.SATURATED] = 1
        for slot in leaving:
            self._leave_locked(slot)
        slot = self._free_slot_locked()
        # Reserved rows hold it, but ejections may have crowded the gap that was planned with.
        node = self.extents.locate_locked(request.span, words[f.RESERVED_ROWS])
        start = self.extents.end_locked(node)
        base = slot * f.SLOT_WORDS
        notes = self.arrays.note_words
        notes[base + f.OWNER_PID] = owner.pid
        notes[base + f.OWNER_START] = owner.start
        notes[base + f.EXTRA] = request.extra
        slots[base + f.IDENTITY] = request.identity
        slots[base + f.START] = start
        slots[base + f.LENGTH] = request.length
        slots[base + f.SPAN] = request.span
        if request.length > words[f.LONGEST]:
            words[f.LONGEST] = request.length
        generation = slots[base + f.GENERATION]
        self.reservations.open(slot, generation, caller)
        slots[base + f.STATE] = f.WRITING  # the commit point
        self.extents.place_locked(node, slot, request.span)
        self.identities.insert_locked(request.identity, slot)
        words[f.WRITING_COUNT] += 1
        words[f.WRITING_STEPS] += request.length
        if start + request.span > words[f.ROW_HIGH]:
            words[f.ROW_HIGH] = start + request.span
        self.ring()
        words[DIRTY] = 0
        old_generation = slots[old * f.SLOT_WORDS + f.GENERATION]
        return Reservation(slot, generation, start, request.length, old, old_generation)

    # -- commit and abort ------------------------------------------------------------------

    def commit_locked(self, reservation: Reservation) -> None:
        """Make a written sequence live; what it replaces goes afterwards.

        Raises:
            SlotLostError: the reservation was taken away (its owner was believed dead).
        """
        words, slots, notes = self.words, self.arrays.slot_words, self.arrays.note_words
        slot = reservation.slot
        base = slot * f.SLOT_WORDS
        if not self._is_ours(slot, reservation.generation):
            self.reservations.close(slot)
            raise SlotLostError(
                f"slot {slot} was reclaimed while its sequence was being written: its owner was "
                "taken for dead; add the sequence again",
                slot=slot,
            )
        start, length = slots[base + f.START], slots[base + f.LENGTH]
        words[DIRTY] = 1
        order = words[f.NEXT_ORDER]
        words[f.NEXT_ORDER] = order + 1
        words[f.STEP_TOTAL] += length
        slots[base + f.ORDER] = order
        slots[base + f.VERSION] = 0
        notes[base + f.STEPS_AT] = words[f.STEP_TOTAL]
        notes[base + f.TIMES_SAMPLED] = 0
        self._track(slot, start, length)
        slots[base + f.STATE] = f.LIVE  # the commit point
        self.reservations.close(slot)
        words[f.WRITING_COUNT] -= 1
        words[f.WRITING_STEPS] -= length
        self._enter_live_locked(slot, length)
        old = reservation.replaces
        if old and self._is_live(old, reservation.replaced_generation):
            self._leave_locked(old)
        self.ring()
        words[DIRTY] = 0

    def abort_of_locked(self, caller: FrameType) -> None:
        """Give back what a call has reserved and not committed."""
        self._abort_locked(self.reservations.of(caller))

    def abort_abandoned_locked(self) -> None:
        """Give back what calls of this process have reserved that are no longer running."""
        self._abort_locked(self.reservations.abandoned())

    def _abort_locked(self, slots: list[int]) -> None:
        ours = [slot for slot in slots if self._is_ours(slot, self.reservations.generation(slot))]
        if ours:
            self.reclaim_locked(ours)
        for slot in slots:
            self.reservations.close(slot)

    def reclaim_locked(self, slots: list[int]) -> None:
        """Free WRITING slots: of the dead, or our own abandoned ones."""
        self.words[DIRTY] = 1
        for slot in slots:
            self._leave_locked(slot)
        self.ring()
        self.words[DIRTY] = 0

    def sweep_locked(self) -> int:
        """Take back what dead processes have left WRITING; returns how many slots."""
        gone = [slot for slot in self._writing().tolist() if owner_is_gone(self.arrays, slot)]
        if gone:
            self.reclaim_locked(gone)
        return len(gone)

    def refuse_duplicate_locked(self, identity: int) -> None:
        """Raise DuplicateIdentityError when the identity is in the table or being written."""
        live, writing = self.identities.find_locked(identity)
        if live or (writing and not owner_is_gone(self.arrays, writing)):
            raise _duplicate(identity, bool(live))

    # -- leave -----------------------------------------------------------------------------

    def eject_locked(self, slots: list[int]) -> None:
        """Remove live sequences, one commit point each."""
        self.words[DIRTY] = 1
        for slot in slots:
            self._leave_locked(slot)
        self.ring()
        self.words[DIRTY] = 0

    def clear_locked(self) -> None:
        """Remove every live sequence at once: the store into LIVE_FROM is the commit point."""
        words = self.words
        words[DIRTY] = 1
        words[f.SATURATED] = 0
        words[f.REMOVED] += words[f.LIVE_COUNT]
        words[f.LIVE_FROM] = words[f.NEXT_ORDER]
        self.rebuild_locked()

    def resize_locked(self, maxlen: int, max_sequences: int) -> None:
        """Raise the limits; the caller has checked that they do not fall and can be had."""
        words = self.words
        words[DIRTY] = 1
        words[f.MAX_SEQUENCES] = max_sequences
        words[f.MAXLEN] = maxlen
        words[f.SATURATED] = 0
        self.ring()
        words[DIRTY] = 0

    def grow_buckets_locked(self, buckets: int) -> None:
        """Spread the identity map over ``buckets``, reserved before."""
        self.words[DIRTY] = 1
        self.identities.rebuild_locked(self._occupied(), buckets)
        self.words[DIRTY] = 0

    def rebuild_locked(self, *, alone: bool = False) -> None:
        """Recompute all that is derived from the slot table.

        Args:
            alone: no other process has the table open, so nothing is being written.
        """
        rebuild_locked(self, self._rebuild_strategies, alone)

    # -- pieces ----------------------------------------------------------------------------

    def _leave_locked(self, slot: int) -> None:
        """LIVE or WRITING to FREE, and what follows from it. DIRTY is set."""
        words, slots = self.words, self.arrays.slot_words
        base = slot * f.SLOT_WORDS
        was_live = slots[base + f.STATE] == f.LIVE
        length = slots[base + f.LENGTH]
        slots[base + f.GENERATION] += 1
        slots[base + f.STATE] = f.FREE  # the commit point
        self.identities.remove_locked(slots[base + f.IDENTITY], slot)
        self.extents.release_locked(slot, slots[base + f.SPAN])
        if was_live:
            self._forget(slot, slots[base + f.START], length)
            self._leave_live_locked(slot, length)
            words[f.REMOVED] += 1
        else:
            words[f.WRITING_COUNT] -= 1
            words[f.WRITING_STEPS] -= length
        count = words[f.FREE_COUNT]
        self.arrays.free_words[count] = slot
        words[f.FREE_COUNT] = count + 1

    def _enter_live_locked(self, slot: int, length: int) -> None:
        words, links = self.words, self.arrays.link_words
        base = slot * f.LINK_WORDS
        newest = links[f.OLDER]
        links[base + f.OLDER] = newest
        links[base + f.NEWER] = 0
        links[newest * f.LINK_WORDS + f.NEWER] = slot
        links[f.OLDER] = slot
        place = words[f.LIVE_COUNT]
        self.arrays.live_words[place] = slot
        links[base + f.PLACE] = place
        words[f.LIVE_COUNT] = place + 1
        words[f.LIVE_STEPS] += length

    def _leave_live_locked(self, slot: int, length: int) -> None:
        words, links, live = self.words, self.arrays.link_words, self.arrays.live_words
        base = slot * f.LINK_WORDS
        older, newer = links[base + f.OLDER], links[base + f.NEWER]
        links[older * f.LINK_WORDS + f.NEWER] = newer
        links[newer * f.LINK_WORDS + f.OLDER] = older
        # The last of the live array takes the place that falls vacant.
        last = words[f.LIVE_COUNT] - 1
        moved, place = live[last], links[base + f.PLACE]
        live[place] = moved
        links[moved * f.LINK_WORDS + f.PLACE] = place
        words[f.LIVE_COUNT] = last
        words[f.LIVE_STEPS] -= length

    def _free_slot_locked(self) -> int:
        words = self.words
        count = words[f.FREE_COUNT]
        if count:
            words[f.FREE_COUNT] = count - 1
            return self.arrays.free_words[count - 1]
        slot = words[f.SLOT_HIGH]
        words[f.SLOT_HIGH] = slot + 1
        return slot

    def _locate_locked(self, span: int) -> int:
        return self.extents.locate_locked(span, self._row_limit())

    def _row_limit(self) -> int:
        words = self.words
        return row_limit(words[f.MAXLEN], words[f.MAX_SEQUENCES], self._extra_rows)

    def _is_ours(self, slot: int, generation: int) -> bool:
        base = slot * f.SLOT_WORDS
        slots, notes, owner = self.arrays.slot_words, self.arrays.note_words, process.current()
        return bool(
            slots[base + f.STATE] == f.WRITING
            and slots[base + f.GENERATION] == generation
            and notes[base + f.OWNER_PID] == owner.pid
            and notes[base + f.OWNER_START] == owner.start
        )

    def _is_live(self, slot: int, generation: int) -> bool:
        base = slot * f.SLOT_WORDS
        slots = self.arrays.slot_words
        return bool(slots[base + f.STATE] == f.LIVE and slots[base + f.GENERATION] == generation)

    def _occupied(self) -> Int64Array:
        return np.flatnonzero(self.arrays.slots[: self.words[f.SLOT_HIGH], f.STATE] != f.FREE)

    def _writing(self) -> Int64Array:
        return np.flatnonzero(self.arrays.slots[: self.words[f.SLOT_HIGH], f.STATE] == f.WRITING)


def _duplicate(identity: int, live: bool) -> DuplicateIdentityError:
    return DuplicateIdentityError(
        f"identity {identity} is already {'in the table' if live else 'being written'}: an "
        "identity may be added once; use another, remove(identity) first, or make the table with "
        "on_duplicate='replace'",
        identity=identity,
    )
