"""How long calls have waited, all processes together: counted where the waiting is, not in calls
that go through at once.
"""

from __future__ import annotations

from shmtable.index import fields as f
from shmtable.shm.guard import Guard

# Kept in the process until it is worth taking the lock for: what dies with the process is less.
_WORTH_NS = 100_000_000


class Waited:
    """Counts one process's waiting into the table's.

    Args:
        words: the header's.
        guard: the table's.
    """

    def __init__(self, words: memoryview, guard: Guard) -> None:
        self._words = words
        self._guard = guard
        self.forget()

    def forget(self) -> None:
        """In a forked child: what is pending is the parent's."""
        self._pending_ns: dict[int, list[int]] = {f.ADDS_WAITED_NS: [], f.SAMPLES_WAITED_NS: []}

    def add(self, word: int, waited_ns: int) -> None:
        """Note that a call has slept; without the lock.

        Args:
            word: ADDS_WAITED_NS or SAMPLES_WAITED_NS.
            waited_ns: how long.
        """
        pending = self._pending_ns[word]
        pending.append(waited_ns)  # a list, because other threads append too
        if sum(pending) >= _WORTH_NS:
            self._guard.run(self._store_locked, word)

    def _store_locked(self, word: int) -> None:
        pending, self._pending_ns[word] = self._pending_ns[word], []
        self._words[word] += sum(pending)
