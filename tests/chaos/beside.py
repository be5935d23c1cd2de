"""A sequence that this process is in the middle of adding while others come and die."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from shmtable import ArrayMemoryTable
from tests.chaos.content import Entry, add

DEADLINE_S = 60.0


class HalfWritten:
    """A thread of this process that has reserved, and waits in the middle of its copy.

    In a child that is forked meanwhile everything is as usual: the thread is not there.
    """

    def __init__(self, table: ArrayMemoryTable, entry: Entry) -> None:
        self._table = table
        self._entry = entry
        self._storage: Any = table._core.storage
        self._reached = threading.Event()
        self._go_on = threading.Event()
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._add, daemon=True)

    def __enter__(self) -> HalfWritten:
        write = self._storage.write

        def wait_and_write(*arguments: Any) -> None:
            if threading.current_thread() is self._thread:
                self._reached.set()
                assert self._go_on.wait(DEADLINE_S)
            write(*arguments)

        self._storage.write = wait_and_write
        self._thread.start()
        assert self._reached.wait(DEADLINE_S), self._errors
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._go_on.set()
        self._thread.join(DEADLINE_S)
        del self._storage.write

    def finish(self) -> None:
        """Let it be committed."""
        self._go_on.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        assert self._errors == []

    def _add(self) -> None:
        try:
            add(self._table, self._entry)
        except BaseException as error:
            self._errors.append(error)
