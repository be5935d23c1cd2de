"""The shards of this process's own node: attached by name, written to through shared memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shmtable.adaptors import Adaptor
from shmtable.errors import ArenaDamagedError, ArenaNotFoundError, ClosedError
from shmtable.integrations.ray import damage
from shmtable.protocols import Core
from shmtable.shm import files
from shmtable.table import ArrayMemoryTable

_PATIENCE_S = 60.0
_PAUSE_S = 0.05
_LOOK_EVERY_S = 0.01
# Made-up identities begin at multiples of 2**28, which alone would all lead to the same shard.
RANGE_BITS = 28
# Memory in which a lock may have been damaged while a thread of this process had it. The C library
# chains the locks that a thread has through their memory, and would write into the gap.
_KEPT: list[Any] = []


class Local:
    """What a process has attached of its own node's shards; made anew in every process.

    Args:
        names: gives the names of the node's tables; none where they are not ready yet, None where
            there will be none.
        classes: strategies and mappers of the user's own.
        report: lets the shards of these names look whether they are damaged. They alone decide: a
            damaged one has given up its name when this returns.
    """

    def __init__(
        self,
        names: Callable[[], Sequence[str] | None],
        classes: Iterable[type[Any]],
        report: Callable[[Sequence[str]], None],
    ) -> None:
        self._names = names
        self._classes = tuple(classes)
        self._report = report
        self._tables: list[ArrayMemoryTable] = []
        self._lock = threading.Lock()
        self._look_at = 0.0
        self._closed = False

    def table(self, identity: int = 0) -> ArrayMemoryTable:
        """The table on this node that a sequence of this identity belongs to.

        A sequence that is added again thus meets the first one, and is refused.

        Raises:
            ArenaNotFoundError: no shard is, or comes to be, on this node.
            ClosedError: another thread has closed the table.
        """
        tables = self._tables
        if time.monotonic() >= self._look_at:
            self._look(tables)
            tables = self._tables
        if not tables:
            raise ClosedError("the table is closed; make or attach it again to use it")
        return tables[(identity + (identity >> RANGE_BITS)) % len(tables)]

    def add(self, identity: int, adding: Callable[[ArrayMemoryTable], None]) -> None:
        """Add to the table that an identity belongs to; to the next one if that is damaged.

        What a damaged table has taken is lost with it, so nothing is added twice.
        """
        table = self.table(identity)
        try:
            adding(table)
        except Exception as error:
            if not damage.behind(error, table):
                raise
            self._report([table._core.arena.name or ""])
            if is_current(table):  # its shard does not answer, or finds nothing wrong
                raise
            self._look_at = 0.0
            adding(self.table(identity))

    def _look(self, seen: list[ArrayMemoryTable]) -> None:
        """Make sure that the tables are those that the names lead to, and for a moment, then.

        What is added within that moment may go into a table that has just been lost, as what was
        added right before it was lost.
        """
        with self._lock:
            current = seen and all(map(_in_order, seen))
            if self._tables is seen and not self._closed and not current:
                self._attach()
            self._look_at = time.monotonic() + _LOOK_EVERY_S

    def close(self) -> None:
        """Let go of the tables."""
        with self._lock:
            self._closed = True
            tables, self._tables = self._tables, []
        for table in tables:
            table.close()

    def _attach(self) -> None:
        # Where the table has been replaced, the name leads to the new one by now, or will in a
        # moment: its actor makes it before it answers. The old one goes with the last call inside.
        ends = time.monotonic() + _PATIENCE_S
        while True:
            names = self._names()
            if names is None or (not names and time.monotonic() > ends):
                raise ArenaNotFoundError(
                    "no shard is on this node, or it is not ready in time; make the table with "
                    "nodes=None for one on every node, or with this node among nodes"
                )
            try:
                anew = self._attached(names)
                if anew:
                    break
            except (ArenaNotFoundError, ArenaDamagedError) as error:
                if time.monotonic() > ends:
                    raise
                if isinstance(error, ArenaDamagedError):
                    self._report(names)
                time.sleep(_PAUSE_S)
        old, self._tables = self._tables, anew
        for table in old:
            if damage.glance(table) or damage.ruined_lock(table):
                _KEPT.append(table._core.arena.memory)
            table.close()

    def _attached(self, names: Sequence[str]) -> list[ArrayMemoryTable]:
        tables: list[ArrayMemoryTable] = []
        try:
            for name in names:
                tables.append(ArrayMemoryTable.attach(name, classes=self._classes))
                if wrong := damage.glance(tables[-1]):
                    raise ArenaDamagedError(wrong, path=tables[-1]._core.arena.path)
        except BaseException:
            for table in tables:
                table.close()
            raise
        return tables


class Current:
    """A table of this process's node as a writer sees it, whichever it is by now.

    Args:
        local: gives the table that an identity belongs to.
        identity: the first that is written.
        adaptors: of the distributed table.
    """

    def __init__(
        self, local: Callable[[int], ArrayMemoryTable], identity: int, adaptors: list[Adaptor]
    ) -> None:
        self._local, self._identity, self.adaptors = local, identity, adaptors

    @property
    def _core(self) -> Core:
        return self._local(self._identity)._core


def is_current(table: ArrayMemoryTable) -> bool:
    """Whether a table's name still leads to its file: not so when its shard was begun anew."""
    arena = table._core.arena
    try:
        status = os.lstat(arena.path or "")
    except FileNotFoundError:
        return False
    return files.key_of(status) == arena._descriptor.key


def _in_order(table: ArrayMemoryTable) -> bool:
    return is_current(table) and not damage.glance(table)
