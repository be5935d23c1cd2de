"""Stores into shared memory, one by one: counted, recorded, and the last one a process makes.

A vector store is not one store but many, in no promised order, so a process may die when some of
its elements are stored: it counts as three points of death, after its first half, after its last
half, and after all of it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.index import fields as f
from shmtable.protocols import Core
from shmtable.shm import header

Array = npt.NDArray[Any]
Range = tuple[int, int]  # first byte, bytes


class Stores:
    """The stores of this process so far. Each is announced before and reported after.

    Args:
        fatal: the number of the store, from 1 on, after which this process gets the signal.
        number: the signal; by default the store is the last thing it does.
        shadow: compared before each store; then the stores are recorded, too.

    Attributes:
        count: how many so far.
        labels: one line for each point of death, when recording: the product's functions on the
            stack, and what was stored where.
    """

    def __init__(
        self,
        fatal: int | None = None,
        shadow: Shadow | None = None,
        number: int = signal.SIGKILL,
    ) -> None:
        self.labels: list[str] = []
        self.count = 0
        self._fatal = fatal
        self._shadow = shadow
        self._number = number

    def next_is_fatal(self) -> bool:
        """Whether the process will not survive the next store."""
        return self.count + 1 == self._fatal

    def before(self, target: str) -> None:
        """A store is about to be made."""
        if self._shadow is not None:
            self._shadow.compare(target)

    def after(self, target: str) -> None:
        """It has been made; the process gets its signal if it is time."""
        self.count += 1
        if self.count == self._fatal:
            os.kill(os.getpid(), self._number)
        if self._shadow is not None:
            self._shadow.renew()
            self.labels.append(f"{_path()}: {target}")


class Shadow:
    """A copy of the arena's reserved bytes, to find stores that nobody reported, or undo them.

    The bytes of the mutexes are the C library's and are left out.

    Args:
        core: the table.
        rows: whether to look at the columns, too.
    """

    def __init__(self, core: Core, *, rows: bool = True) -> None:
        self._core = core
        self._rows = rows
        self._bytes: Array = core.arena.memory.numpy()
        # The real words: reading the marks must not depend on what is being watched.
        self._words: memoryview = core.arena.words
        self._copies: dict[str, Array] = {}
        self.renew()

    def renew(self) -> None:
        """Take what is there for granted."""
        self._copies = {name: self._part(where).copy() for name, where in self._ranges()}

    def restore(self) -> None:
        """Put everything back to what it was at the last look."""
        # All ranges as they are now: among what is put back are the marks that they end at.
        for name, where in list(self._ranges()):
            now, copy = self._part(where), self._copies[name]
            now[: len(copy)] = copy
            now[len(copy) :] = 0  # reserved since

    def compare(self, before: str) -> None:
        """Fail if anything differs from the last look."""
        for name, where in self._ranges():
            copy, now = self._copies.get(name, np.empty(0, np.uint8)), self._part(where)
            # What has been reserved since is zero at first.
            if np.array_equal(copy, now[: len(copy)]) and not now[len(copy) :].any():
                continue
            places = np.flatnonzero(copy != now[: len(copy)])
            raise AssertionError(
                f"somebody stored into {name}, bytes {places[:8]}, unnoticed, before {before} "
                f"in {_path()}"
            )

    def _part(self, where: Range) -> Array:
        return self._bytes[where[0] : where[0] + where[1]]

    def _ranges(self) -> Iterator[tuple[str, Range]]:
        mutexes = header.TABLE_MUTEX * 8, (header.GROW_MUTEX + 8) * 8
        yield "header", (0, mutexes[0])
        yield "words", (mutexes[1], header.HEADER_BYTES - mutexes[1])
        marks = {"row": f.RESERVED_ROWS, "slot": f.RESERVED_SLOTS, "bucket": f.RESERVED_BUCKETS}
        for name, region in self._core.layout.regions.items():
            if not self._rows and name.startswith(("column/", "tag/")):
                continue
            whole = region.capacity if region.per == "once" else self._words[marks[region.per]]
            count = -(-whole // region.every)
            yield name, (region.offset, count * region.item_bytes)


def _path() -> str:
    """The product's functions on the stack, outermost first."""
    names: list[str] = []
    frame = sys._getframe(1)
    while frame is not None:
        if "/shmtable/" in frame.f_code.co_filename:
            names.append(frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return " > ".join(reversed(names))
