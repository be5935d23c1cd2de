"""Clear and restore: the whole table at one store of `live_from`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.model import words as at
from tests.model.adding import claim_slot
from tests.model.machine import Move, Operation, Process, View, section_move
from tests.model.words import (
    FREE,
    GONE,
    LIVE,
    LOADED,
    NOTES,
    THERE,
    WRITING,
    Section,
    data_of,
    priority_of,
)


def old_goes(view: View, words: bytearray) -> list[tuple[int, int]]:
    """The ghosts of everything that is there: gone at one instant."""
    table = view.table
    return [
        (at.FATE + words[at.TAG + slot], GONE) for slot in table.slots if table.there(words, slot)
    ]


def sweep_below(view: View, section: Section) -> None:
    """Free what live_from has made invisible; TAKEN slots are their takers' to end."""
    rules = view.table.rules
    for slot in view.table.slots:
        words = section.words
        below = words[at.ORDER + slot] < words[at.LIVE_FROM]
        if words[at.STATE + slot] == LIVE and below:
            view.table.leave(section, slot)
        elif words[at.STATE + slot] == WRITING and not rules.clear_spares_writing:
            view.table.leave(section, slot)


@dataclass(frozen=True)
class Clear(Operation):
    """Empty the table: one store makes everything invisible, then the slots are freed.

    Sequences being written meanwhile are not touched: they commit after the clear.
    """

    phases = ("clear", "sweep")
    locked = frozenset({"clear", "sweep"})

    def moves(self, view: View, process: Process) -> Iterator[Move]:
        section = view.table.open(view.words)
        after = self.done(process)
        if process.phase == "clear":
            words = section.words
            section.put(at.LIVE_FROM, words[at.NEXT_ORDER], *old_goes(view, words))
            if not view.table.rules.clear_in_one_section:
                view.table.close(section)
                after = process._replace(phase="sweep")
                yield section_move(f"P{view.me} clears, to sweep later", section, after)
                return
        sweep_below(view, section)
        view.table.close(section)
        yield section_move(f"P{view.me} {process.phase}s", section, after)


@dataclass(frozen=True)
class Restore(Operation):
    """Replace the table's content: ``content`` is (identity, tag) of each, one row long.

    Each sequence is loaded into a slot of its own, LOADED, which nobody sees and which does not
    take its identity; then one section publishes them all by one store of live_from.
    """

    content: tuple[tuple[int, int], ...] = ()

    phases = ("load", "copy", "publish")
    locked = frozenset({"load", "publish"})

    def moves(self, view: View, process: Process) -> Iterator[Move]:
        if process.phase == "load":
            yield self._load(view, process)
        elif process.phase == "copy":
            yield self._copy(view, process)
        else:
            yield self._publish(view, process)

    def _load(self, view: View, process: Process) -> Move:
        table, rules = view.table, view.table.rules
        number = len(process.seen)
        identity, tag = self.content[number]
        section = table.open(view.words)
        table.sweep(section, view.dead)
        words = section.words
        free = [slot for slot in table.slots if words[at.STATE + slot] == FREE]
        start = table.extent(words, 1)
        if not free or start is None:
            return self._no_room(view, process)
        slot = free[0]
        for address, value in (
            (at.IDENTITY, identity),
            (at.START, start),
            (at.LENGTH, 1),
            (at.TAG, tag),
        ):
            section.put(address + slot, value)
        if rules.publish_at_reset:
            section.put(at.PUBLISH_AT + slot, 0)
        if not rules.loaded_fields_at_publish:
            section.put(at.PRIORITY + slot, priority_of(tag))
        claim_slot(view, section, slot, LOADED, view.claim(process, number), number)
        if not rules.notes_all_states:
            section.put(at.NOTE + view.me * NOTES + number, 0)
        table.close(section)
        after = process._replace(phase="copy", start=start, length=1, slot=slot)
        return section_move(f"P{view.me} loads {identity} into slot {slot}", section, after)

    def _no_room(self, view: View, process: Process) -> Move:
        after = process._replace(phase="abort") if process.seen else self.done(process)
        return Move(f"P{view.me} has no room to restore", after)

    def _copy(self, view: View, process: Process) -> Move:
        section = Section(view.words)
        tag = self.content[len(process.seen)][1]
        section.put(at.DATA + process.start, data_of(tag))
        seen = (*process.seen, process.slot)
        last = len(seen) == len(self.content)
        after = process._replace(phase="publish" if last else "load", seen=seen, start=0, length=0)
        return section_move(f"P{view.me} copies row {process.start}", section, after)

    def _publish(self, view: View, process: Process) -> Move:
        table, rules, words = view.table, view.table.rules, view.words
        for slot in process.seen:
            if words[at.STATE + slot] != LOADED or words[at.OWNER + slot] != view.owner:
                return Move(f"P{view.me} lost what it loaded", self.done(process))
        section = table.open(words)
        first = section.words[at.NEXT_ORDER] + rules.publish_above_live_from
        if rules.restore_raises_order_first:
            section.put(at.NEXT_ORDER, first + len(self.content))
        for number, slot in enumerate(process.seen):
            self._fields(section, slot, first + number, rules.loaded_fields_at_publish)
            section.put(at.PUBLISH_AT + slot, first)
        section.put(at.NEXT_ORDER, first + len(self.content))
        old = old_goes(view, section.words)
        new = [(at.FATE + tag, THERE) for _, tag in self.content]
        if rules.restore_at_once:
            section.put(at.LIVE_FROM, first, *old, *new)
            for slot in process.seen:
                section.put(at.STATE + slot, LIVE)
            sweep_below(view, section)
        else:
            self._one_by_one(view, section, process, [*old, *new])
        for number in range(len(self.content)):
            section.put(at.NOTE + view.me * NOTES + number, 0)
        table.close(section)
        return section_move(f"P{view.me} publishes what it loaded", section, self.done(process))

    @staticmethod
    def _fields(section: Section, slot: int, order: int, priority: bool) -> None:
        section.put(at.ORDER + slot, order)
        section.put(at.STEPS + slot, section.words[at.STEP_TOTAL])
        section.put(at.TIMES + slot, 0)
        section.put(at.VERSION + slot, 0)
        if priority:
            section.put(at.PRIORITY + slot, priority_of(section.words[at.TAG + slot]))

    @staticmethod
    def _one_by_one(
        view: View, section: Section, process: Process, ghosts: list[tuple[int, int]]
    ) -> None:
        """Known-bad: each slot becomes LIVE by itself, each old one goes by itself."""
        slots = [slot for slot in view.table.slots if section.words[at.STATE + slot] == LIVE]
        for number, slot in enumerate(process.seen):
            section.put(at.STATE + slot, LIVE, *(ghosts if number == 0 else ()))
        for slot in slots:
            view.table.count_exit(section, "before")
            section.put(at.GENERATION + slot, section.words[at.GENERATION + slot] + 1)
            section.put(at.STATE + slot, FREE)
