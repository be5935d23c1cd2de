"""What a table should contain: a list, beside the table that is being mistreated."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from shmtable import ArrayMemoryTable
from shmtable.index import fields as f
from tests.multiprocess import content

MANY = 50  # sequences; of more than these, only some are read back


class Entry(NamedTuple):
    """A sequence, known by these three (see ``tests.multiprocess.content``)."""

    identity: int
    length: int
    version: int = 0


class Content(NamedTuple):
    """The sequences of a table in the order they were added, and its limits.

    ``writing`` is one that somebody has room for and has not finished; it counts for the limits.
    """

    entries: tuple[Entry, ...]
    maxlen: int
    max_sequences: int
    writing: Entry | None = None

    def adding(self, entry: Entry, *, replace: bool = False) -> list[Content]:
        """The stages of an add: this, each ejection for it (first in, first out), the new one."""
        old = [known for known in self.entries if replace and known.identity == entry.identity]
        stages = [self]
        while not stages[-1]._fits(entry, old):
            left = list(stages[-1].entries)
            left.remove(next(known for known in left if known not in old))
            stages.append(self._replace(entries=tuple(left)))
        left = [known for known in stages[-1].entries if known not in old]
        return [*stages, self._replace(entries=(*left, entry))]

    def added(self, *entries: Entry, replace: bool = False) -> Content:
        """What is there after adding them all."""
        now = self
        for entry in entries:
            now = now.adding(entry, replace=replace)[-1]
        return now

    def without(self, *identities: int) -> Content:
        """What is there when these have been removed."""
        left = tuple(entry for entry in self.entries if entry.identity not in identities)
        return self._replace(entries=left)

    def finished(self) -> Content:
        """What is there when the one being written has been committed."""
        return self if self.writing is None else self._replace(writing=None).added(self.writing)

    def has(self, identity: int) -> bool:
        """Whether the identity is there."""
        return any(entry.identity == identity for entry in self.entries)

    def _fits(self, entry: Entry, old: list[Entry]) -> bool:
        steps = sum(known.length for known in self.entries) - sum(known.length for known in old)
        sequences = len(self.entries) - len(old)
        if self.writing is not None:
            steps, sequences = steps + self.writing.length, sequences + 1
        return steps + entry.length <= self.maxlen and sequences < self.max_sequences


def add(table: ArrayMemoryTable, *entries: Entry) -> None:
    """Adds sequences, one at a time."""
    width = table.columns[0].shape[0]
    for identity, length, version in entries:
        found = content.sequence(identity, length, version=version, width=width)
        table.add_sequence(identity, found)


def look(table: ArrayMemoryTable) -> Content:
    """What is there, every element of it checked; raises AssertionError on nonsense."""
    identities = table.identities().tolist()
    records = table._core.arrays.slots[table._core.view.live_slots()]
    lengths = dict(records[:, [f.IDENTITY, f.LENGTH]].tolist())
    entries = []
    for place, identity in enumerate(identities):
        if len(identities) > MANY and place % (len(identities) // MANY):
            entries.append(Entry(identity, lengths[identity]))
            continue
        found = table.sequence(identity)
        assert content.wrong_with_sequence(found, identity) == []
        _, version, length, _ = found["who"].tolist()
        entries.append(Entry(identity, length, version))
    stats = table.stats()
    assert stats.sequences == len(entries)
    assert stats.transitions == table.size() == sum(entry.length for entry in entries)
    return Content(tuple(entries), table.maxlen, stats.max_sequences)


def remember(table: ArrayMemoryTable) -> Callable[[], list[str]]:
    """Notes where every sequence lies, as a reader does before it copies.

    Returns:
        To be called later: which of the places hold something else by now without it showing in
        the generation. A reader could not tell, and would hand out a torn window.
    """
    slots = table._core.arrays.slots
    live = np.sort(table._core.view.live_slots())
    before = slots[live].tolist()

    def unnoticed() -> list[str]:
        found = []
        for slot, old, new in zip(live.tolist(), before, slots[live].tolist(), strict=True):
            same = all(
                old[field] == new[field] for field in (f.IDENTITY, f.START, f.LENGTH, f.ORDER)
            )
            if old[f.GENERATION] == new[f.GENERATION] and not (same and new[f.STATE] == f.LIVE):
                found.append(f"slot {slot} was {old} and is {new}")
        return found

    return unnoticed
