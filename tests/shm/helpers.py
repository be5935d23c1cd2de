"""Module-level parts that members of a crew need too."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from shmtable.shm import address as addresses
from shmtable.shm import header
from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from tests.multiprocess.recipe import link

# Words of the index's part, free for the tests: a section changes both, and leaves them equal.
FIRST, SECOND, REPAIRS = 100, 101, 102
DESCRIPTION = {"what": "a tëst", "numbers": [1, 2.5, None]}
ROOM_BYTES = 1 << 20


class Parcel:
    """Carries an arena's address as a table does; several of one arena may travel together."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena

    def __reduce__(self) -> tuple[object, ...]:
        return _unpack, (self.arena.address(),)


def _unpack(address: addresses.Address) -> Parcel:
    return Parcel(Arena.open(address))


def descriptors() -> Counter[str]:
    """How many descriptors this process has on each file.

    By file, so that those which the collector or another thread closes meanwhile do not count
    against those which a test opens.
    """
    links: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the directory that was just listed
            links[os.readlink(f"/proc/self/fd/{number}")] += 1
    return links


def small_plan(factor: int) -> tuple[int, dict[str, Any]]:
    """One MiB a factor behind the header."""
    return header.header_bytes(DESCRIPTION) + factor * ROOM_BYTES, DESCRIPTION


def counting_guard(arena: Arena, which: str = "table") -> Guard:
    """A guard whose repair makes the counters equal and counts itself."""
    words, dirty = arena.words, header.LOCKS[which].dirty

    def repair() -> None:
        words[SECOND] = words[FIRST]
        words[REPAIRS] += 1
        words[dirty] = 0

    return Guard(arena, which, repair)


def count_up(words: memoryview) -> None:
    """A section that is torn if it is cut off anywhere between its first and its last store."""
    words[header.DIRTY] = 1
    before = words[FIRST]
    words[FIRST] = before + 1
    if words[SECOND] != before:
        raise AssertionError(f"torn: {words[SECOND]} beside {before}")
    _linger()
    words[SECOND] = before + 1
    words[header.DIRTY] = 0


def _linger() -> None:
    for _ in range(20):
        pass


def count_for_ever(parcel: Parcel) -> None:
    """What a member does until it is killed."""
    guard = counting_guard(parcel.arena)
    guard.run(count_up, parcel.arena.words)
    link().tell("counting")
    while True:
        guard.run(count_up, parcel.arena.words)


def wait_until(happened: Callable[[], object], deadline_s: float = 30.0) -> None:
    """Look again and again until something has happened in another process."""
    until = time.monotonic() + deadline_s
    while not happened():
        if time.monotonic() > until:
            raise AssertionError(f"{happened} did not happen within {deadline_s} s")
        time.sleep(0.002)
