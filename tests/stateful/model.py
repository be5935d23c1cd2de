"""What a table is, said with a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Entry(NamedTuple):
    """One sequence; ``serial`` is what its numbers were made from."""

    identity: int
    serial: int
    length: int


class ListTable:
    """Sequences in order of insertion, within two limits."""

    def __init__(self, maxlen: int, max_sequences: int, replace: bool) -> None:
        self.maxlen = maxlen
        self.max_sequences = max_sequences
        self.first_limits = maxlen, max_sequences
        self.replace = replace
        self.entries: list[Entry] = []
        self.ejected = False

    def size(self) -> int:
        return sum(entry.length for entry in self.entries)

    def find(self, identity: int) -> Entry | None:
        return next((entry for entry in self.entries if entry.identity == identity), None)

    def wanted(self, new: Entry) -> int:
        """Transitions that must go for ``new``; 1 where only a sequence too many is in the way."""
        old = self.find(new.identity)
        excess = self.size() - (old.length if old else 0) + new.length - self.maxlen
        full = len(self.entries) + (old is None) > self.max_sequences
        return max(excess, int(full), 0)

    def oldest(self, new: Entry) -> list[Entry]:
        """Whom first in, first out ejects for ``new``; never the one it replaces."""
        wanted, gone = self.wanted(new), []
        for entry in self.entries:
            if wanted > sum(each.length for each in gone) and entry.identity != new.identity:
                gone.append(entry)
        return gone

    def add(self, new: Entry, gone: Sequence[Entry]) -> None:
        self.ejected |= bool(gone)
        self.entries = [e for e in self.entries if e not in gone and e.identity != new.identity]
        self.entries.append(new)

    def remove(self, identity: int) -> None:
        self.entries = [entry for entry in self.entries if entry.identity != identity]

    def clear(self) -> None:
        self.entries, self.ejected = [], False

    def resize(self, maxlen: int) -> None:
        first_maxlen, first_sequences = self.first_limits
        self.max_sequences = first_sequences * maxlen // first_maxlen
        self.maxlen, self.ejected = maxlen, False

    def full(self) -> bool:
        at_limit = self.size() >= self.maxlen or len(self.entries) >= self.max_sequences
        return self.ejected or at_limit
