"""The address of an arena: what travels when a table is pickled."""

from __future__ import annotations

import multiprocessing.context
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.reduction import DupFd
from typing import Any

from shmtable.errors import ArenaNotFoundError
from shmtable.shm import files, leftovers, process
from shmtable.shm.opened import Opened


@dataclass(frozen=True)
class Holder:
    """A process that has (or had) the file open.

    Attributes:
        pid, start: the process, see ``process.ProcessId``.
        fd: the number of its descriptor.
    """

    pid: int
    start: int
    fd: int


@dataclass(frozen=True)
class Address:
    """Where an arena can be found.

    Attributes:
        id: its 128-bit number; whatever is opened must carry it.
        path, name, directory: of its file, None where it has none.
        holders: processes to ask in turn, the sender first.
        handle: while a process is being spawned, a ``reduction.DupFd`` of the descriptor itself.
    """

    id: int
    path: str | None
    name: str | None
    directory: str | None
    holders: tuple[Holder, ...]
    handle: Any = None

    def __str__(self) -> str:
        return self.path or f"unnamed table {self.id:032x}"

    def ways(self) -> Iterator[Callable[[], files.Descriptor]]:
        """Ways to a descriptor besides the path, best first; each may fail with an OSError."""
        if self.handle is not None:
            yield self._take_over
        for holder in self.holders:
            yield partial(_borrow, holder)

    def _take_over(self) -> files.Descriptor:
        fd = self.handle.detach()
        # In any other process than the spawned one, this number is somebody else's: look before
        # taking it over, and leave it open.
        if files.read_header(fd, str(self)).id != self.id:
            raise ArenaNotFoundError("the descriptor is not that of the table")
        os.set_inheritable(fd, False)
        return files.register(Opened(int, fd))


def _borrow(holder: Holder) -> files.Descriptor:
    """Open the file through another process's descriptor table."""
    start = process.start_time(holder.pid)
    if start == 0 or start != holder.start:
        raise ArenaNotFoundError(f"process {holder.pid} has ended")
    descriptor = files.open_file(f"/proc/{holder.pid}/fd/{holder.fd}", magic_link=True)
    try:
        leftovers.share(descriptor.fd)
    except BaseException:
        descriptor.drop()
        raise
    return descriptor


def hand_over(fd: int, previous: tuple[Any, Any] | None) -> tuple[Any, Any] | None:
    """While a child is being spawned, arrange that it inherits a descriptor.

    Args:
        fd: the descriptor.
        previous: what the last call for it returned.

    Returns:
        (weak reference to the spawning Popen, a handle for the child), or None when nothing is
        being spawned.
    """
    popen = multiprocessing.context.get_spawning_popen()
    if popen is None:
        return None
    if previous is not None and previous[0]() is popen:
        return previous  # the same number twice would make the spawn fail
    # Held weakly: it keeps pipes to its child open.
    return weakref.ref(popen), DupFd(fd)
