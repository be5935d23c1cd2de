"""How an arena lets go of its file: at ``close``, when it is dropped, or as the process ends."""

from __future__ import annotations

import multiprocessing.util
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from shmtable.shm import durable, files, leftovers, process


class Parting:
    """Lets go of one use of a descriptor, once, at the latest when its owner is dropped.

    Args:
        owner: the arena.
        descriptor: of its file.
    """

    def __init__(self, owner: object, descriptor: files.Descriptor) -> None:
        self._owner = weakref.ref(owner)
        self._descriptor = descriptor
        self._finalizer: weakref.finalize[..., Any] = weakref.finalize(owner, descriptor.drop)
        self._at_child_exit: multiprocessing.util.Finalize | None = None

    def now(self) -> None:
        """Let go, if that has not happened yet."""
        self._finalizer()
        if self._at_child_exit is not None:
            self._at_child_exit.cancel()

    def remove_name(self, path: str) -> None:
        """Let the name of a file in memory go with it; for the process that made it."""
        self._finalizer.detach()
        act: Callable[..., None] = partial(_retire, self._descriptor, path, process.current())
        self._finalizer = weakref.finalize(self._owner(), act)
        self._let_go_at_exit()

    def keep_name(self) -> None:
        """Let the name stay, however this process ends: somebody else sees to it."""
        self._finalizer.detach()
        self._finalizer = weakref.finalize(self._owner(), self._descriptor.drop)

    def mark_clean(self, path: str) -> None:
        """Have a file on disk marked, should this process be the last one to let it go."""
        self._descriptor.afterwards = partial(durable.mark, path, self._descriptor.key)
        self._let_go_at_exit()
        multiprocessing.util.register_after_fork(self, Parting._let_go_at_exit)

    def _let_go_at_exit(self) -> None:
        # Children of multiprocessing leave without running atexit.
        self._at_child_exit = multiprocessing.util.Finalize(None, self._finalizer, exitpriority=0)


def _retire(descriptor: files.Descriptor, path: str, owner: process.ProcessId) -> None:
    """Let go of an arena, and remove its name if this process is its owner."""
    if owner == process.current():  # never in a forked child
        with suppress(OSError):  # nobody could act on it now; sweep() will
            leftovers.remove(path, descriptor.key)
    descriptor.drop()
