"""What every section of the modelled index is made of: leaving a slot, derived words, rebuild."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import words as at
from tests.model.rules import Bounds, Rules
from tests.model.words import (
    FREE,
    GONE,
    HIGHEST,
    INDEX,
    LIVE,
    LOADED,
    STRATEGIES,
    TAKEN,
    WRITING,
    Section,
    priority_of,
)

Memory = bytes | bytearray


class Table:
    """The rules and bounds, and the index code that depends on them.

    ``stranger``: a process that does not know the strategies' classes (a command line). It
    repairs and changes the index, leaves what is the strategies' alone, and never clears their
    dirty bit.
    """

    def __init__(self, rules: Rules, bounds: Bounds, stranger: bool = False) -> None:
        self.rules = rules
        self.bounds = bounds
        self.stranger = stranger
        self.slots = range(bounds.slots)

    # What a word means.

    def current(self, words: Memory, slot: int) -> bool:
        """Whether a published sequence has not been cleared away."""
        return not self.rules.honour_live_from or words[at.ORDER + slot] >= words[at.LIVE_FROM]

    def visible(self, words: Memory, slot: int) -> bool:
        """Whether pickers and readers may use the slot's sequence."""
        return words[at.STATE + slot] == LIVE and self.current(words, slot)

    def there(self, words: Memory, slot: int) -> bool:
        """Whether the slot's sequence is in the table: visible, or out with a taker."""
        return words[at.STATE + slot] in (LIVE, TAKEN) and self.current(words, slot)

    def owner_dead(self, words: Memory, slot: int, dead: int) -> bool:
        """Whether the kernel proves the slot's owner gone; ``dead``: bit p for process p."""
        # Shifted by one, because owner 0 is nobody, who cannot be proved dead.
        return bool(dead << 1 >> words[at.OWNER + slot] & 1)

    def rows_of(self, words: Memory, slot: int) -> range:
        return range(words[at.START + slot], words[at.START + slot] + words[at.LENGTH + slot])

    # Pieces of sections.

    def open(self, words: Memory) -> Section:
        section = Section(bytes(words))
        section.put(at.DIRTY, INDEX | STRATEGIES)
        return section

    def must_repair(self, words: Memory) -> bool:
        return bool(words[at.DIRTY] & (INDEX if self.stranger else INDEX | STRATEGIES))

    def close(self, section: Section) -> Section:
        """Bring the derived words up to date, then clear the dirty flag: the last store."""
        left = STRATEGIES if self.stranger and self.rules.stranger_keeps_bit else 0
        if not self.rules.dirty_cleared_last:
            section.put(at.DIRTY, left)
        self.settle(section)
        section.put(at.DIRTY, left)
        return section

    def leave(self, section: Section, slot: int, gone: bool = False) -> None:
        """End a slot's stay; ``gone``: this store is what removes it from the ideal table."""
        ghost = [(at.FATE + section.words[at.TAG + slot], GONE)] if gone else []
        generation = section.words[at.GENERATION + slot] + 1
        self.count_exit(section, "before")
        if self.rules.generation_before_free:
            section.put(at.GENERATION + slot, generation)
            section.put(at.STATE + slot, FREE, *ghost)
        else:
            section.put(at.STATE + slot, FREE, *ghost)
            section.put(at.GENERATION + slot, generation)
        self.count_exit(section, "after")

    def count_exit(self, section: Section, when: str) -> None:
        """Raise the word that tells readers to look at generations."""
        if self.rules.exits_rise == when:
            section.put(at.EXITS, section.words[at.EXITS] + 1)

    def return_taken(self, section: Section, slot: int) -> None:
        """TAKEN to LIVE: its leaf was zeroed meanwhile, so it comes back as the highest.

        Not if a clear or a restore has come by since: then there is nothing to return to.
        """
        current = self.current(section.words, slot)
        if self.rules.returned_tests_live_from and not current:
            self.leave(section, slot)
            return
        if self.rules.returned_gets_highest:
            section.put(at.PRIORITY + slot, priority_of(section.words[at.TAG + slot], HIGHEST))
        section.put(at.STATE + slot, LIVE)

    def oldest(self, words: Memory, keep: int = -1) -> int | None:
        """The ejector's victim (first in, first out), never ``keep``."""
        slots = [slot for slot in self.slots if self.visible(words, slot) and slot != keep]
        return min(slots, key=lambda slot: words[at.ORDER + slot]) if slots else None

    def extent(self, words: Memory, length: int) -> int | None:
        """First fit: the lowest start of ``length`` rows in a row that no slot occupies."""
        taken = {
            row
            for slot in self.slots
            if words[at.STATE + slot] != FREE
            for row in self.rows_of(words, slot)
        }
        for start in range(self.bounds.rows - length + 1):
            if taken.isdisjoint(range(start, start + length)):
                return start
        return None

    # Derived words.

    def derived(self, words: Memory) -> bytearray:
        """All derived words, recomputed from the slot table."""
        out = bytearray(at.DERIVED_END - at.DERIVED)
        for slot in self.slots:
            state = words[at.STATE + slot]
            if state == FREE:
                continue
            for row in self.rows_of(words, slot):
                out[at.ROW - at.DERIVED + row] = slot + 1
            if self.there(words, slot):
                out[at.MAP - at.DERIVED + words[at.IDENTITY + slot]] = slot + 1
                out[at.LIVE_STEPS - at.DERIVED] += words[at.LENGTH + slot]
            if self.visible(words, slot):
                out[at.PRIORITY_SUM - at.DERIVED] += words[at.PRIORITY + slot]
            if state == WRITING:
                if self.rules.map_has_writing:
                    out[at.CLAIMED - at.DERIVED + words[at.IDENTITY + slot]] = slot + 1
                out[at.WRITING_STEPS - at.DERIVED] += words[at.LENGTH + slot]
        if not self.rules.writing_is_derived:
            out[at.WRITING_STEPS - at.DERIVED] = words[at.WRITING_STEPS]
        return out

    def settle(self, section: Section) -> None:
        wanted = self.derived(section.words)
        if self.stranger:
            wanted[at.PRIORITY_SUM - at.DERIVED] = section.words[at.PRIORITY_SUM]
        found = section.words[at.DERIVED : at.DERIVED_END]
        for index, (old, new) in enumerate(zip(found, wanted, strict=True)):
            if old != new:
                section.put(at.DERIVED + index, new)

    # Recovery.

    def rebuild(self, words: Memory, dead: int) -> Section:
        """Make the table whole from its slot table; may be cut off anywhere and run again."""
        section = self.open(words)
        self._finish_live_from(section)
        self.reclaim(section, dead)
        self._return_of_the_dead(section, dead)
        self._leave_all(section, list(self._duplicates(section.words)))
        self._raise_counters(section)
        for slot in self.slots:
            version = section.words[at.VERSION + slot]
            if section.words[at.STATE + slot] == LIVE:
                if self.rules.version_marks == "around":
                    section.put(at.VERSION + slot, version + version % 2)
            elif not self.stranger:
                section.put(at.PRIORITY + slot, 0)
        return self.close(section)

    def reclaim(self, section: Section, dead: int) -> None:
        """Free what dead writers and restorers left behind."""
        words = section.words
        reserved = [slot for slot in self.slots if words[at.STATE + slot] in (WRITING, LOADED)]
        self._leave_all(section, [s for s in reserved if self.owner_dead(words, s, dead)])

    def _leave_all(self, section: Section, slots: list[int]) -> None:
        """What is freed on behalf of others may go in two vector stores: no order is needed."""
        if self.rules.rebuild_in_vectors and slots:
            words = section.words
            self.count_exit(section, "before")
            section.vector([(at.GENERATION + s, words[at.GENERATION + s] + 1) for s in slots])
            section.vector([(at.STATE + s, FREE) for s in slots])
            return
        for slot in slots:
            self.leave(section, slot)

    def sweep(self, section: Section, dead: int) -> None:
        """Take back what the dead held. They left no dirty flag if they died outside a section."""
        self.reclaim(section, dead)
        if self.rules.sweep_returns_taken:
            self._return_of_the_dead(section, dead)

    def _return_of_the_dead(self, section: Section, dead: int) -> None:
        if self.stranger:  # cannot give them the strategies' fields they need to be LIVE
            return
        for slot in self.slots:
            if section.words[at.STATE + slot] == TAKEN and self.owner_dead(
                section.words, slot, dead
            ):
                self.return_taken(section, slot)

    def _finish_live_from(self, section: Section) -> None:
        """Finish a clear or a restore whose one store was made."""
        words = section.words
        if not self.rules.honour_live_from:
            return
        for slot in self.slots:
            publish_at = words[at.PUBLISH_AT + slot]
            if words[at.STATE + slot] == LOADED and publish_at:
                if publish_at == words[at.LIVE_FROM]:
                    section.put(at.STATE + slot, LIVE)
        below = [
            s for s in self.slots if words[at.STATE + s] == LIVE and not self.current(words, s)
        ]
        self._leave_all(section, below)

    def _duplicates(self, words: Memory) -> Iterator[int]:
        """Of two sequences with one identity (a replace cut off) the lower order goes."""
        newest: dict[int, int] = {}
        live = [slot for slot in self.slots if self.visible(words, slot)]
        for slot in sorted(live, key=lambda slot: words[at.ORDER + slot]):
            identity = words[at.IDENTITY + slot]
            if identity in newest:
                yield newest[identity]
            newest[identity] = slot

    def _raise_counters(self, section: Section) -> None:
        """What a section cut off before its counters did not get to store."""
        words = section.words
        for slot in self.slots:
            committed = words[at.STATE + slot] in (LIVE, TAKEN)
            if committed:
                section.put(at.NEXT_ORDER, max(words[at.NEXT_ORDER], words[at.ORDER + slot] + 1))
            if committed or not self.rules.steps_of_committed_only:
                section.put(at.STEP_TOTAL, max(words[at.STEP_TOTAL], words[at.STEPS + slot]))
