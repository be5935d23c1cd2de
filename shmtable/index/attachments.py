"""Who has the table open, and when each was last heard of: for messages.

Every process writes its own entry only. Nothing that keeps the table sound depends on an entry;
whether a process is alive is always asked of the kernel.
"""

from __future__ import annotations

import time
import weakref
from typing import NamedTuple

from shmtable.index import fields as f
from shmtable.shm import process
from shmtable.shm.header import ID_HIGH, ID_LOW, PID_NAMESPACE

ENTRIES = 256
ENTRY_WORDS = 8

_MOST_NAMED = 8
_SEVERAL = -1  # no namespace has this number

_PID = 0  # stored last when an entry is taken, first when it is given back; 0: nobody's
_START = 1
_NUMBER = 2
_JOINED_NS = 3  # CLOCK_MONOTONIC, which all processes of a machine share
_ADDED_NS = 4  # 0: has never added
_SAMPLED_NS = 5
_SEQUENCES = 6
_STEPS = 7


class Attachment(NamedTuple):
    """One entry.

    Attributes:
        pid, start: the process.
        number: unique per table; the process's random stream is derived from it.
        sequences, steps: what it has added.
        added_s_ago, sampled_s_ago: seconds since; None for never.
        joined_s_ago: seconds since it opened the table.
    """

    pid: int
    start: int
    number: int
    sequences: int
    steps: int
    added_s_ago: float | None
    sampled_s_ago: float | None
    joined_s_ago: float = 0.0

    def is_gone(self) -> bool:
        """Whether the kernel proves that the process has ended."""
        return process.is_gone(self.pid, self.start)

    def __str__(self) -> str:
        state = "gone" if self.is_gone() else "alive"
        heard = "never added" if self.added_s_ago is None else f"added {self.added_s_ago:.1f} s ago"
        if self.sampled_s_ago is not None:
            heard += f", sampled {self.sampled_s_ago:.1f} s ago"
        return f"pid {self.pid} ({state}, {heard})"


class Attachments:
    """The entries of one table.

    Args:
        words: the header's counters.
        entries: int64 words of the ``attachments`` region.
    """

    def __init__(self, words: memoryview, entries: memoryview) -> None:
        self._words = words
        self._entries = entries
        self._base = -1  # of this process's entry
        self.number = -1
        # Who is interrupted before it can leave, or never does, leaves all the same.
        self._taken: list[tuple[int, int]] = []  # where, and which
        weakref.finalize(self, _give_back, entries, self._taken).atexit = False

    def join_locked(self) -> int:
        """Take an entry; returns the number of this attachment, never given before."""
        self.leave()  # what a call has taken that was interrupted
        number: int = self._words[f.NEXT_ATTACHMENT]
        # Two copies of one file on disk, both attached here, count alike.
        while _joined.setdefault(_key(self._words, number), self) is not self:
            number += 1
        self._words[f.NEXT_ATTACHMENT] = number + 1
        me = process.current()
        if not can_tell(self._words):
            self._words[PID_NAMESPACE] = _SEVERAL
        self.number = number
        entries, base = self._entries, self._vacant()
        if base < 0:
            self._words[f.CROWDED] = 1
            return number
        entries[base + _PID] = 0
        entries[base + _START] = me.start
        entries[base + _NUMBER] = number
        entries[base + _JOINED_NS] = time.monotonic_ns()
        for word in (_ADDED_NS, _SAMPLED_NS, _SEQUENCES, _STEPS):
            entries[base + word] = 0
        self._taken.append((base, number))
        entries[base + _PID] = me.pid
        self._base = base
        return number

    def can_tell(self) -> bool:
        """Whether all have entries, and numbers that the kernel can be asked for."""
        return can_tell(self._words) and not self._words[f.CROWDED]

    def forget(self) -> None:
        """In a forked child: the entry is the parent's."""
        self._base = self.number = -1
        self._taken.clear()

    def leave(self) -> None:
        """Give this process's entry back; what it is writing stays its own."""
        self._base = -1
        _give_back(self._entries, self._taken)

    def added(self, length: int) -> None:
        """Note a sequence of this process. Without an entry of its own, nothing is noted."""
        base = self._base
        if base >= 0:
            entries = self._entries
            entries[base + _ADDED_NS] = time.monotonic_ns()
            entries[base + _SEQUENCES] += 1
            entries[base + _STEPS] += length

    def has_added(self) -> bool:
        """Whether this process has ever added."""
        return self._base >= 0 and bool(self._entries[self._base + _SEQUENCES])

    def sampled(self) -> None:
        """Note a sample of this process."""
        if self._base >= 0:
            self._entries[self._base + _SAMPLED_NS] = time.monotonic_ns()

    def all(self) -> list[Attachment]:
        """Every entry taken, by number."""
        now = time.monotonic_ns()
        found = []
        words = self._entries.tolist()  # at once: most entries are nobody's
        for base in range(0, ENTRIES * ENTRY_WORDS, ENTRY_WORDS):
            if words[base + _PID]:
                entry = words[base : base + ENTRY_WORDS]
                found.append(
                    Attachment(
                        entry[_PID],
                        entry[_START],
                        entry[_NUMBER],
                        entry[_SEQUENCES],
                        entry[_STEPS],
                        _ago(now, entry[_ADDED_NS]),
                        _ago(now, entry[_SAMPLED_NS]),
                        _ago(now, entry[_JOINED_NS]) or 0.0,
                    )
                )
        return sorted(found, key=lambda attachment: attachment.number)

    def others(self) -> list[Attachment]:
        """The entries of all but this attachment."""
        return [attachment for attachment in self.all() if attachment.number != self.number]

    def company(self) -> str:
        """Who else has the table open, and when each was last heard of: to end a message with."""
        others = self.others()
        if not others:
            return (
                "no other process has the table open: see whether the others run, and were "
                "passed it"
            )
        writers = sum(other.added_s_ago is not None for other in others)
        have = "other process has" if len(others) == 1 else "other processes have"
        more = ", and more that are not listed" if self._words[f.CROWDED] else ""
        shown = "; ".join(map(str, others[-_MOST_NAMED:]))
        return f"{len(others)} {have} the table open{more}, {writers} of them added to it: {shown}"

    def _vacant(self) -> int:
        """Where to write: an empty entry, or a dead process's; -1 where all are the living's."""
        entries = range(0, ENTRIES * ENTRY_WORDS, ENTRY_WORDS)
        for base in entries:
            if not self._entries[base + _PID]:
                return base
        for base in entries:
            if process.is_gone(self._entries[base + _PID], self._entries[base + _START]):
                return base
        return -1


# By table and number: those of this process that somebody still has.
_joined: weakref.WeakValueDictionary[tuple[int, int, int], Attachments] = (
    weakref.WeakValueDictionary()
)


def _key(words: memoryview, number: int) -> tuple[int, int, int]:
    return words[ID_LOW], words[ID_HIGH], number


def _give_back(entries: memoryview, taken: list[tuple[int, int]]) -> None:
    me = process.current()
    for base, number in taken:
        # A forked child has its parent's list.
        mine = me.pid, me.start, number
        if tuple(entries[base + word] for word in (_PID, _START, _NUMBER)) == mine:
            entries[base + _PID] = 0
    taken.clear()


def is_let_go(words: memoryview, pid: int, start: int, number: int) -> bool:
    """Whether an attachment was this process's, and nothing here could go on using it.

    Closed is not enough: another thread may be in the middle of a call.
    """
    me = process.current()
    if number < 0 or 0 in (start, me.start) or (pid, start) != (me.pid, me.start):
        return False
    return _key(words, number) not in _joined


def can_tell(words: memoryview) -> bool:
    """Whether the processes of a table are all numbered in this one's namespace.

    A table whose creator could not tell its own (0) comes from a system without any.
    """
    return words[PID_NAMESPACE] in (0, process.pid_namespace())


def _ago(now_ns: int, then_ns: int) -> float | None:
    return max(now_ns - then_ns, 0) / 1e9 if then_ns else None
