"""Using a sequence up: exactly once while nobody dies, at least once when somebody does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.model import words as at
from tests.model.adding import claim_slot
from tests.model.machine import Move, Operation, Process, View, section_move
from tests.model.reading import gather_row, picked, torn, unwritten
from tests.model.words import FREE, GONE, NOTES, TAKEN, Section


@dataclass(frozen=True)
class Take(Operation):
    """Take the oldest sequence out of a queue: TAKEN, gather, count, FREE.

    ``at_validation``: a simpler way to the same promise, without the TAKEN state: gather like
    any reader, and use the sequence up in the section that validates; who loses draws again.
    """

    at_validation: bool = False

    phases = ("pick", "gather", "finish", "free")
    locked = frozenset({"pick", "finish", "free"})

    def moves(self, view: View, process: Process) -> Iterator[Move]:
        if process.phase == "pick":
            yield self._pick(view, process)
        elif process.phase == "gather":
            yield gather_row(view, process, "finish")
        elif process.phase == "finish":
            yield self._finish(view, process)
        else:
            yield self._free(view, process)

    def _pick(self, view: View, process: Process) -> Move:
        table, rules = view.table, view.table.rules
        section = table.open(view.words)
        table.sweep(section, view.dead)
        slot = self._next(view, section.words)
        if slot is None:
            return Move(f"P{view.me} finds nothing to take", self.done(process))
        after = picked(view, process, slot, "gather")
        if self.at_validation:
            return Move(f"P{view.me} looks at slot {slot}", after)
        if not rules.take_exclusive:
            return Move(f"P{view.me} takes slot {slot}", after)
        if rules.take_frees_last:
            claim_slot(view, section, slot, TAKEN, view.claim(process))
            if not rules.notes_all_states:
                section.put(at.NOTE + view.me * NOTES, 0)
        else:
            table.leave(section, slot)
        table.close(section)
        return section_move(f"P{view.me} takes slot {slot}", section, after)

    def _next(self, view: View, words: bytearray) -> int | None:
        """First in, first out; not one whose replacement is on its way."""
        table = view.table
        slots = [
            slot
            for slot in table.slots
            if table.visible(words, slot)
            and not (
                table.rules.take_skips_replaced
                and view.words[at.CLAIMED + words[at.IDENTITY + slot]]
            )
        ]
        return min(slots, key=lambda slot: words[at.ORDER + slot]) if slots else None

    def _finish(self, view: View, process: Process) -> Move:
        table, words, slot, rules = view.table, view.words, process.slot, view.table.rules
        section = table.open(words)
        careful = rules.take_exclusive and rules.take_frees_last
        if careful and not self._still_ours(view, process):
            return self._lost(view, process, section)
        if wrong := torn(view, process):
            return Move(f"P{view.me} hands it out", process, wrong=wrong)
        tag = words[at.TAG + slot]
        if words[at.HANDED + tag]:
            wrong = f"sequence {tag} is handed out twice"
            return Move(f"P{view.me} hands it out", process, wrong=wrong)
        ghosts = ((at.HANDED + tag, 1), (at.FATE + tag, GONE))
        if self.at_validation and not rules.used_up_at_once:
            section.put(at.TIMES + slot, section.words[at.TIMES + slot] + 1, ghosts[0])
            section.put(at.SAMPLE_TOTAL, section.words[at.SAMPLE_TOTAL] + 1)
            table.close(section)
            return section_move(f"P{view.me} counts it", section, process._replace(phase="free"))
        if rules.take_counts_first:
            self._count(section, slot)
        if rules.take_frees_last:
            table.count_exit(section, "before")
            section.put(at.GENERATION + slot, section.words[at.GENERATION + slot] + 1)
            section.put(at.STATE + slot, FREE, *ghosts)
        if not rules.take_counts_first:
            self._count(section, slot)
        section.put(at.NOTE + view.me * NOTES, 0)
        table.close(section)
        return section_move(f"P{view.me} hands it out", section, self.done(process))

    def _free(self, view: View, process: Process) -> Move:
        """The known-bad way: what was handed out goes in a section of its own."""
        section = view.table.open(view.words)
        if view.words[at.GENERATION + process.slot] == process.generation:
            view.table.leave(section, process.slot, gone=True)
        view.table.close(section)
        return section_move(f"P{view.me} removes it", section, self.done(process))

    def _still_ours(self, view: View, process: Process) -> bool:
        """Nobody took, cleared, replaced or (without TAKEN) rewrote it meanwhile."""
        words, slot = view.words, process.slot
        if words[at.GENERATION + slot] != process.generation:
            return False
        if self.at_validation:
            return unwritten(view, process) and view.table.visible(words, slot)
        mine = words[at.STATE + slot] == TAKEN and words[at.OWNER + slot] == view.owner
        return mine and view.table.current(words, slot)

    def _lost(self, view: View, process: Process, section: Section) -> Move:
        """Cleared or replaced meanwhile: end our stay, hand out nothing."""
        slot, words = process.slot, section.words
        mine = words[at.STATE + slot] == TAKEN and words[at.OWNER + slot] == view.owner
        if not self.at_validation and mine:
            view.table.leave(section, slot)
        section.put(at.NOTE + view.me * NOTES, 0)
        view.table.close(section)
        return section_move(f"P{view.me} lost it, draws again", section, self.done(process))

    @staticmethod
    def _count(section: Section, slot: int) -> None:
        section.put(at.TIMES + slot, section.words[at.TIMES + slot] + 1)
        section.put(at.SAMPLE_TOTAL, section.words[at.SAMPLE_TOTAL] + 1)
