"""Add, replace and remove: reserve under the lock, copy without it, commit under it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.model import words as at
from tests.model.machine import Move, Operation, Process, View, section_move
from tests.model.words import (
    FREE,
    GONE,
    LIVE,
    NOTES,
    TAKEN,
    THERE,
    WRITING,
    Section,
    data_of,
    priority_of,
)


def note(view: View, section: Section, slot: int, claim: int, number: int = 0) -> None:
    """The process's own note of a reservation it is about to make (private memory)."""
    index = view.me * NOTES + number
    overwritten: list[tuple[int, int]] = []
    if view.table.rules.own_by == "slot":
        # One note per slot and process: this one takes the place of a sibling thread's old one.
        overwritten = [
            (at.NOTE + other, 0)
            for other in view.notes_of_siblings()
            if section.words[at.NOTE + other] == slot + 1
        ]
    section.put(at.NOTE_GENERATION + index, section.words[at.GENERATION + slot])
    section.put(at.NOTE_CLAIM + index, claim)
    section.put(at.NOTE + index, slot + 1, *overwritten)


def claim_slot(
    view: View, section: Section, slot: int, state: int, claim: int, number: int = 0
) -> None:
    """Take a slot for this process: owner and note first, the state last."""
    rules = view.table.rules
    if rules.owner_before_writing:
        section.put(at.OWNER + slot, view.owner)
        section.put(at.CLAIM + slot, claim)
    if rules.note_before_state:
        note(view, section, slot, claim, number)
    section.put(at.STATE + slot, state)
    if not rules.owner_before_writing:
        section.put(at.OWNER + slot, view.owner)
        section.put(at.CLAIM + slot, claim)
    if not rules.note_before_state:
        note(view, section, slot, claim, number)


@dataclass(frozen=True)
class Add(Operation):
    """Add one sequence. ``tag`` is its content; give every sequence of a scenario another."""

    identity: int
    tag: int
    length: int = 2
    replace: bool = False

    def __post_init__(self) -> None:
        # An untouched row and an untouched field are 0 and must not look like somebody's own.
        assert 0 < self.tag < at.TAGS

    phases = ("reserve", "copy", "commit")
    locked = frozenset({"reserve", "commit"})

    def moves(self, view: View, process: Process) -> Iterator[Move]:
        if process.phase == "reserve":
            yield from self._reserve(view, process)
        elif process.phase == "copy":
            yield self._copy(view, process)
        else:
            yield self._commit(view, process)

    # Reserve.

    def _reserve(self, view: View, process: Process) -> Iterator[Move]:
        table, words, rules = view.table, view.words, view.table.rules
        name = f"P{view.me} {'replaces' if self.replace else 'adds'} {self.identity}"
        old = words[at.MAP + self.identity] - 1
        writing = words[at.CLAIMED + self.identity] - 1
        if writing >= 0 and not table.owner_dead(words, writing, view.dead):
            if not self.replace:
                yield Move(f"{name}: refused, it is being written", self.done(process))
            return
        if old >= 0 and not self.replace:
            yield Move(f"{name}: refused, it is there", self.done(process))
            return
        taken = old >= 0 and words[at.STATE + old] == TAKEN
        if taken and rules.take_skips_replaced and not table.owner_dead(words, old, view.dead):
            return
        if not self._admitted(view):
            yield Move(f"{name}: held back by the limiter, times out", self.done(process))
            return
        for timed_out in self._believed_dead(view):
            section = table.open(words)
            table.sweep(section, view.dead)
            if timed_out >= 0:
                table.leave(section, timed_out)
            slot = self._make_room(view, section, old)
            if slot is not None:
                yield self._take_slot(view, process, section, slot, f"{name}: reserves")
            elif self._in_the_way(view, section):
                continue  # somebody's copy will end: wait, holding nothing
            elif rules.replace_may_give_up:
                yield Move(f"{name}: refused, no room beside the old", self.done(process))

    def _admitted(self, view: View) -> bool:
        """The limiter: what is being written counts, or two writers pass one gap."""
        lead = view.table.bounds.lead
        if lead is None:
            return True
        writing = view.words[at.WRITING_STEPS] if view.table.rules.limiter_counts_writing else 0
        for slot in view.table.slots:  # shares of the provably dead are about to come back
            dead = view.words[at.STATE + slot] == WRITING and view.table.owner_dead(
                view.words, slot, view.dead
            )
            if dead and view.table.rules.writing_is_derived:
                writing -= view.words[at.LENGTH + slot]
        allowed = lead + view.words[at.SAMPLE_TOTAL]
        return view.words[at.STEP_TOTAL] + writing + self.length <= allowed

    def _believed_dead(self, view: View) -> Iterator[int]:
        """Under the known-bad rule any WRITING slot may be taken for a dead owner's."""
        yield -1
        if not view.table.rules.reclaim_needs_proof:
            for slot in view.table.slots:
                if view.words[at.STATE + slot] == WRITING:
                    yield slot

    def _in_the_way(self, view: View, section: Section) -> bool:
        return any(section.words[at.STATE + slot] not in (FREE, LIVE) for slot in view.table.slots)

    def _make_room(self, view: View, section: Section, old: int) -> int | None:
        """Eject, oldest first, until slot, rows and maxlen suffice; the slot, its start stored."""
        table, words = view.table, section.words
        for slot in table.slots:  # what a clear in several sections has not swept yet
            if words[at.STATE + slot] == LIVE and not table.current(words, slot):
                table.leave(section, slot)
        if old >= 0 and not table.rules.replace_keeps_old:
            table.leave(section, old)
            old = -1
        while True:
            derived = table.derived(words)
            steps = derived[at.LIVE_STEPS - at.DERIVED] + derived[at.WRITING_STEPS - at.DERIVED]
            steps -= words[at.LENGTH + old] if old >= 0 else 0
            free = [slot for slot in table.slots if words[at.STATE + slot] == FREE]
            start = table.extent(words, self.length)
            if free and start is not None and steps + self.length <= table.bounds.maxlen:
                section.put(at.START + free[0], start)
                return free[0]
            victim = table.oldest(words, keep=old)
            if victim is None:
                return None
            table.leave(section, victim, gone=True)

    def _take_slot(
        self, view: View, process: Process, section: Section, slot: int, label: str
    ) -> Move:
        section.put(at.IDENTITY + slot, self.identity)
        section.put(at.LENGTH + slot, self.length)
        section.put(at.TAG + slot, self.tag)
        section.put(at.PUBLISH_AT + slot, 0)
        claim_slot(view, section, slot, WRITING, view.claim(process))
        if not view.table.rules.writing_is_derived:
            section.put(at.WRITING_STEPS, section.words[at.WRITING_STEPS] + self.length)
        view.table.close(section)
        words = section.words
        after = Process(
            process.call,
            "copy",
            slot,
            words[at.GENERATION + slot],
            start=words[at.START + slot],
            length=self.length,
            old=view.words[at.MAP + self.identity],
        )
        return section_move(label, section, after)

    # Copy.

    def _copy(self, view: View, process: Process) -> Move:
        done = len(process.seen)
        section = Section(view.words)
        section.put(at.DATA + process.start + done, data_of(self.tag))
        after = process._replace(seen=(*process.seen, 0))
        if done + 1 == self.length:
            after = process._replace(phase="commit", seen=())
        return section_move(f"P{view.me} copies row {process.start + done}", section, after)

    # Commit.

    def _commit(self, view: View, process: Process) -> Move:
        table, words, slot = view.table, view.words, process.slot
        name = f"P{view.me} commits {self.identity}"
        same = words[at.GENERATION + slot] == process.generation
        ours = words[at.STATE + slot] == WRITING and words[at.OWNER + slot] == view.owner
        if not ours or (table.rules.commit_checks_generation and not same):
            return Move(f"{name}: lost", self.done(process))
        section = table.open(words)
        known = words[at.MAP + self.identity] if table.rules.replace_looks_again else process.old
        other = known - 1
        if table.rules.commit_checks_identity and other >= 0 and not self.replace:
            table.leave(section, slot)
            table.close(section)
            return section_move(
                f"{name}: refused, published meanwhile", section, self.done(process)
            )
        self._publish(view, section, slot)
        if self.replace and other >= 0:
            table.leave(section, other)
        if not table.rules.writing_is_derived:
            section.put(at.WRITING_STEPS, section.words[at.WRITING_STEPS] - self.length)
        section.put(at.NOTE + view.me * NOTES, 0)
        table.close(section)
        return section_move(name, section, self.done(process))

    def _publish(self, view: View, section: Section, slot: int) -> None:
        """All that is not derived, then LIVE: the one store that makes it real."""
        words, rules = section.words, view.table.rules
        order = words[at.NEXT_ORDER]
        section.put(at.NEXT_ORDER, order + 1)
        steps = words[at.STEP_TOTAL] + self.length
        fields = [
            (at.ORDER + slot, order),
            (at.STEPS + slot, steps),
            (at.TIMES + slot, 0),
            (at.VERSION + slot, 0),
            (at.PRIORITY + slot, priority_of(self.tag)),
        ]
        ghosts = [(at.FATE + self.tag, THERE), (at.BORN_STEPS, words[at.BORN_STEPS] + self.length)]
        replaced = words[at.MAP + self.identity] - 1  # ideally: whatever is there now
        if self.replace and replaced >= 0:
            ghosts.append((at.FATE + words[at.TAG + replaced], GONE))
        if not rules.total_after_live:
            section.put(at.STEP_TOTAL, steps)
        if not rules.commit_is_one_store:
            section.vector([*fields, (at.STATE + slot, LIVE)], *ghosts)
        elif not rules.fields_before_live:
            section.put(at.STATE + slot, LIVE, *ghosts)
        for address, value in fields:
            section.put(address, value)
        if rules.commit_is_one_store and rules.fields_before_live:
            section.put(at.STATE + slot, LIVE, *ghosts)
        section.put(at.STEP_TOTAL, steps)


@dataclass(frozen=True)
class Remove(Operation):
    """Remove one sequence by its identity, if it is there and not out with a taker."""

    identity: int

    phases = ("remove",)
    locked = frozenset({"remove"})

    def moves(self, view: View, process: Process) -> Iterator[Move]:
        slot = view.words[at.MAP + self.identity] - 1
        if slot < 0 or not view.table.visible(view.words, slot):
            yield Move(f"P{view.me} removes {self.identity}: not there", self.done(process))
            return
        section = view.table.open(view.words)
        view.table.leave(section, slot, gone=True)
        view.table.close(section)
        yield section_move(f"P{view.me} removes {self.identity}", section, self.done(process))
