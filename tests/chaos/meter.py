"""What workers leave behind however they end, and how long their calls were held up.

A *stall* is the time within one call of a survivor in which its thread neither computed nor
queued for a processor: it was blocked, by a lock or by waiting for somebody. On a busy machine a
call may take long because others get their share of the processors; that is nobody's fault, and
is left out: Linux tells how long a thread ran and how long it queued (``schedstat``). Where it
does not, only the thread's own computing is left out.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


class Word(IntEnum):
    """The words of a record."""

    STARTED = 0  # sequences whose add into the vault was begun
    ADDED = 1  # ... and acknowledged
    REMOVING = 2  # sequences whose removal from the vault was begun
    REMOVED = 3  # ... and acknowledged
    WINDOWS = 4  # windows verified
    CALLS = 5
    LONGEST_NS = 6  # the longest stall
    LONGEST_KIND = 7  # in which kind of call
    SINCE_NS = 8  # when the call now going on began; 0 between calls


KINDS = ("add", "replace", "remove", "clear", "sample", "sequence", "identities", "check", "stats")


class Records:
    """One record for each worker, in memory that they share with their parent.

    Attributes:
        words: int64 [workers, words]; each worker writes its own row only.
    """

    def __init__(self, workers: int) -> None:
        width = 16  # two cache lines, so that nobody slows a neighbour down
        memory = mmap.mmap(-1, workers * width * 8)
        self.words: npt.NDArray[np.int64] = np.frombuffer(memory, np.int64).reshape(workers, width)


class Meter:
    """Makes calls and notes in a record how long they stalled; for one thread."""

    def __init__(self, record: npt.NDArray[np.int64]) -> None:
        self.record = memoryview(record)
        self._scheduler = _open_schedstat()

    def call(self, kind: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Returns what the function returns; also a call that raises is measured."""
        record = self.record
        busy = self._busy_ns()
        began = time.monotonic_ns()
        record[Word.SINCE_NS] = began
        try:
            return function(*args, **kwargs)
        finally:
            stalled = time.monotonic_ns() - began - (self._busy_ns() - busy)
            record[Word.SINCE_NS] = 0
            record[Word.CALLS] += 1
            if stalled > record[Word.LONGEST_NS]:
                record[Word.LONGEST_NS] = stalled
                record[Word.LONGEST_KIND] = KINDS.index(kind)

    def _busy_ns(self) -> int:
        """Time that this thread has run or queued for a processor."""
        if self._scheduler < 0:
            return time.thread_time_ns()
        ran, queued, _ = os.pread(self._scheduler, 100, 0).split()
        return int(ran) + int(queued)


def _open_schedstat() -> int:
    try:
        found = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    if os.pread(found, 100, 0).split()[2:] == [b"0"]:  # this kernel does not count
        os.close(found)
        return -1
    return found
