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

from collections.abc import Callable, Sequence
from types import FrameType

from shmtable.errors import SlotLostError
from shmtable.index import fields as f
from shmtable.index.arrays import Arrays
from shmtable.index.extents import Extents
from shmtable.index.identities import Identities
from shmtable.index.living import enter_locked, leave_locked
from shmtable.index.loading import (
    leaving_since_locked,
    load_locked,
    publish_locked,
    replaced_since_locked,
)
from shmtable.index.owners import Reservation, Reservations, Sweeps, owner_is_gone, sweep_is_due
from shmtable.index.plan import Blocked, Growth, Leaving, Planner, Request, Victims, duplicate
from shmtable.index.rebuild import rebuild_locked
from shmtable.shm import process
from shmtable.shm.header import DIRTY

_EXTRA_END = 1 << f.EXTRA_BITS


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
        self._sweeps = Sweeps()
        self._own_sweeps = Sweeps()
        self.attachment = -1  # of this process, to tell its reservations by
        self.plan = Planner(arrays, self.extents, extra_rows, len(arrays.row_slot))
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
        if sweep_is_due(self.words, len(self.reservations)):
            self.sweep_locked()
        live, writing = self.identities.find_locked(request.identity)
        if writing and owner_is_gone(self.arrays, writing):
            self.reclaim_locked([writing])
            writing = 0
        if (live or writing) and not request.replace:
            raise duplicate(request.identity, bool(live))
        if writing:
            return Blocked(f"identity {request.identity} is being written by another process")
        leaving = self.plan.leaving_locked(request, live, victims)
        # The room of the dead comes before that of the living.
        if (
            self.words[f.WRITING_COUNT]
            and (isinstance(leaving, Blocked) or leaving.slots)
            and self._sweeps.run(self.sweep_locked)
        ):
            leaving = self.plan.leaving_locked(request, live, victims)
        if isinstance(leaving, Blocked):
            return leaving
        growth = self.plan.growth_locked(request.span, leaving)
        if growth is not None:
            return growth
        return self._store_reservation_locked(request, live, leaving, caller)

    def load_locked(
        self, requests: Sequence[Request], caller: FrameType
    ) -> list[Reservation] | Growth | Blocked:
        """Give sequences of a file slots and rows, beside all there is, until ``publish_locked``.

        All of them or none; they count towards no limit and have no entry in the identity map yet.
        """
        return load_locked(self, requests, caller)

    def publish_locked(self, slots: list[int]) -> None:
        """Put loaded sequences in the place of all live ones, at once, in this order."""
        publish_locked(self, slots)
        for slot in slots:
            self.reservations.close(slot)

    def _store_reservation_locked(
        self, request: Request, old: int, leaving: Leaving, caller: FrameType
    ) -> Reservation:
        words = self.words
        words[DIRTY] = 1
        if leaving.slots:
            words[f.SATURATED] = 1
        if leaving.passes_on:
            # One goes, another of the same size comes: no gap is made, none is looked for.
            slot = leaving.slots[0]
            self._vacate_locked(slot)
            start = self.arrays.slot_words[slot * f.SLOT_WORDS + f.START]
            reservation = self._occupy_locked(request, f.WRITING, slot, start, old, caller)
        else:
            for slot in leaving.slots:
                self._leave_locked(slot)
            # Reserved rows hold it, but ejections may have crowded the gap that was planned with.
            node = self.extents.locate_locked(request.span, words[f.RESERVED_ROWS])
            reservation = self.take_slot_locked(request, f.WRITING, node, old, caller)
        self.identities.insert_locked(request.identity, reservation.slot)
        words[f.WRITING_COUNT] += 1
        words[f.WRITING_STEPS] += request.length
        self.ring()
        words[DIRTY] = 0
        return reservation

    def take_slot_locked(
        self, request: Request, state: int, node: int, old: int, caller: FrameType
    ) -> Reservation:
        """A free slot to WRITING or LOADED, with the rows right behind ``node``'s. DIRTY is set."""
        start = self.extents.end_locked(node)
        reservation = self._occupy_locked(
            request, state, self._free_slot_locked(), start, old, caller
        )
        self.extents.place_locked(node, reservation.slot, request.span)
        if start + request.span > self.words[f.ROW_HIGH]:
            self.words[f.ROW_HIGH] = start + request.span
        return reservation

    def _occupy_locked(
        self, request: Request, state: int, slot: int, start: int, old: int, caller: FrameType
    ) -> Reservation:
        """FREE to WRITING or LOADED. DIRTY is set."""
        words, slots, notes = self.words, self.arrays.slot_words, self.arrays.note_words
        owner = process.current()
        base = slot * f.SLOT_WORDS
        notes[base + f.OWNER_PID] = owner.pid
        notes[base + f.OWNER_START] = owner.start
        notes[base + f.OWNER_ATTACHMENT] = self.attachment
        notes[base + f.EXTRA_MORE], notes[base + f.EXTRA] = divmod(request.extra, _EXTRA_END)
        notes[base + f.PUBLISH_AT] = -1
        slots[base + f.IDENTITY] = request.identity
        slots[base + f.START] = start
        slots[base + f.LENGTH] = length = request.length
        slots[base + f.SPAN] = request.span
        if length > words[f.LONGEST]:
            words[f.LONGEST] = length
        generation = slots[base + f.GENERATION]
        self.reservations.open(slot, caller)
        slots[base + f.STATE] = state  # the commit point
        replaced_generation = slots[old * f.SLOT_WORDS + f.GENERATION]
        return Reservation(
            slot, generation, start, length, old, replaced_generation, words[f.LIVE_FROM]
        )

    # -- commit and abort ------------------------------------------------------------------

    def commit_locked(
        self,
        reservation: Reservation,
        replace: bool = False,
        victims: Victims | None = None,
    ) -> None:
        """Make a written sequence live; what it replaces goes afterwards.

        ``replace`` and ``victims`` are those of its reservation: they are asked again when the
        table was restored meanwhile, and is another one now.

        Raises:
            SlotLostError: the reservation was taken away (its owner was believed dead).
            DuplicateIdentityError: the table was restored meanwhile, with this identity in it.
        """
        words, slots, notes = self.words, self.arrays.slot_words, self.arrays.note_words
        slot, generation, start, length, old, old_generation, live_from = reservation
        base = slot * f.SLOT_WORDS
        if not self._is_ours(slot) or slots[base + f.GENERATION] != generation:
            self.reservations.close(slot)
            raise SlotLostError(
                f"slot {slot} was reclaimed while its sequence was being written: its owner was "
                "taken for dead; add the sequence again",
                slot=slot,
            )
        leaving: list[int] = []
        if words[f.LIVE_FROM] != live_from:
            old, old_generation = replaced_since_locked(self, slot, replace)
            leaving = leaving_since_locked(self, old, victims)
        words[DIRTY] = 1
        for other in leaving:
            self._leave_locked(other)
        order = words[f.NEXT_ORDER]
        words[f.NEXT_ORDER] = order + 1
        steps = words[f.STEP_TOTAL] + length
        slots[base + f.ORDER] = order
        slots[base + f.VERSION] = 0
        notes[base + f.STEPS_AT] = steps
        notes[base + f.SEQUENCES_AT] = sequences = words[f.SEQUENCE_TOTAL] + 1
        self.arrays.times_sampled_words[slot] = 0
        self._track(slot, start, length)
        slots[base + f.STATE] = f.LIVE  # the commit point
        # Only now: steps that were never committed must not count. ``rebuild`` makes up for it.
        words[f.STEP_TOTAL] = steps
        words[f.SEQUENCE_TOTAL] = sequences
        self.reservations.close(slot)
        words[f.WRITING_COUNT] -= 1
        words[f.WRITING_STEPS] -= length
        enter_locked(self.arrays, slot, length)
        if old and self._is_live(old, old_generation):
            self._leave_locked(old)
        self.ring()
        words[DIRTY] = 0

    def abort_of_locked(self, caller: FrameType) -> None:
        """Give back what a call has reserved and not committed."""
        self._abort_locked(self.reservations.of(caller))

    def abort_abandoned_locked(self) -> None:
        """Give back what calls of this process have reserved that are no longer running."""
        self._abort_locked(self.reservations.abandoned())

    def give_back_abandoned_locked(self) -> None:
        """The same, now and then: for every call that holds the lock anyway, if there are any."""
        self._own_sweeps.run(self.abort_abandoned_locked)

    def _abort_locked(self, slots: list[int]) -> None:
        # Not by generation: an abort that was cut off may have raised it already.
        ours = [slot for slot in slots if self._is_ours(slot)]
        if ours:
            self.reclaim_locked(ours)
        for slot in slots:
            self.reservations.close(slot)

    def reclaim_locked(self, slots: list[int]) -> None:
        """Free WRITING or LOADED slots: of the dead, or our own abandoned ones."""
        self.eject_locked(slots)

    def sweep_locked(self) -> int:
        """Take back what dead processes have left unfinished; returns how many slots."""
        gone = [
            slot
            for slot in self.arrays.in_state(f.WRITING, f.LOADED).tolist()
            if owner_is_gone(self.arrays, slot)
        ]
        if gone:
            self.reclaim_locked(gone)
        return len(gone)

    def refuse_duplicate_locked(self, identity: int) -> None:
        """Raise DuplicateIdentityError when the identity is in the table or being written."""
        live, writing = self.identities.find_locked(identity)
        if live or (writing and not owner_is_gone(self.arrays, writing)):
            raise duplicate(identity, bool(live))

    # -- leave -----------------------------------------------------------------------------

    def eject_locked(self, slots: list[int]) -> None:
        """Free slots, one commit point each."""
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
        self.identities.rebuild_locked(self.arrays.in_state(f.WRITING, f.LIVE), buckets)
        self.words[DIRTY] = 0

    def rebuild_locked(self, *, gone_before: int | None = None) -> None:
        """Recompute all that is derived from the slot table.

        Args:
            gone_before: every attachment of a lower number has ended; None if not known.
        """
        rebuild_locked(self, self._rebuild_strategies, gone_before)

    # -- pieces ----------------------------------------------------------------------------

    def _leave_locked(self, slot: int) -> None:
        """LIVE, WRITING or LOADED to FREE; slot and rows may be anybody's. DIRTY is set."""
        words = self.words
        self._vacate_locked(slot)
        self.extents.release_locked(slot, self.arrays.slot_words[slot * f.SLOT_WORDS + f.SPAN])
        count = words[f.FREE_COUNT]
        self.arrays.free_words[count] = slot
        words[f.FREE_COUNT] = count + 1

    def _vacate_locked(self, slot: int) -> None:
        """LIVE, WRITING or LOADED to FREE, and what follows for its sequence. DIRTY is set."""
        words, slots = self.words, self.arrays.slot_words
        base = slot * f.SLOT_WORDS
        state, length = slots[base + f.STATE], slots[base + f.LENGTH]
        words[f.EXITS] += 1
        slots[base + f.GENERATION] += 1
        slots[base + f.STATE] = f.FREE  # the commit point
        if state != f.LOADED:
            self.identities.remove_locked(slots[base + f.IDENTITY], slot)
        if state == f.LIVE:
            self._forget(slot, slots[base + f.START], length)
            leave_locked(self.arrays, slot, length)
            words[f.REMOVED] += 1
        elif state == f.WRITING:
            words[f.WRITING_COUNT] -= 1
            words[f.WRITING_STEPS] -= length

    def _free_slot_locked(self) -> int:
        words = self.words
        count = words[f.FREE_COUNT]
        if count:
            words[f.FREE_COUNT] = count - 1
            return self.arrays.free_words[count - 1]
        slot = words[f.SLOT_HIGH]
        words[f.SLOT_HIGH] = slot + 1
        return slot

    def _is_ours(self, slot: int) -> bool:
        """Whether the slot is one that this attachment has reserved and not finished."""
        base = slot * f.SLOT_WORDS
        slots, notes, owner = self.arrays.slot_words, self.arrays.note_words, process.current()
        return bool(
            slots[base + f.STATE] in (f.WRITING, f.LOADED)
            and notes[base + f.OWNER_PID] == owner.pid
            and notes[base + f.OWNER_START] == owner.start
            and notes[base + f.OWNER_ATTACHMENT] == self.attachment
        )

    def _is_live(self, slot: int, generation: int) -> bool:
        base = slot * f.SLOT_WORDS
        slots = self.arrays.slot_words
        return bool(slots[base + f.STATE] == f.LIVE and slots[base + f.GENERATION] == generation)
