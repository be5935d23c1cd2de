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
        self._descriptor = descriptor
        self._name: list[Callable[[], None]] = []
        self._use = [descriptor.drop]
        self._finalizer: weakref.finalize[..., Any] = weakref.finalize(
            owner, _let_go, self._name, self._use
        )
        self._at_child_exit: multiprocessing.util.Finalize | None = None

    def now(self) -> None:
        """Let go, if that has not happened yet."""
        _let_go(self._name, self._use)
        self._finalizer.detach()  # only now: it does what an interrupt has left undone
        if self._at_child_exit is not None:
            self._at_child_exit.cancel()

    def remove_name(self, path: str) -> None:
        """Let the name of a file in memory go with it; for the process that made it."""
        self._name.append(partial(_remove, path, self._descriptor.key, process.current()))
        self._let_go_at_exit()

    def keep_name(self) -> None:
        """Let the name stay, however this process ends: somebody else sees to it."""
        self._name.clear()

    def mark_clean(self, path: str) -> None:
        """Have a file on disk marked, should this process be the last one to let it go."""
        self._descriptor.afterwards = partial(durable.mark, path, self._descriptor.key)
        self._let_go_at_exit()
        multiprocessing.util.register_after_fork(self, Parting._let_go_at_exit)

    def _let_go_at_exit(self) -> None:
        # Children of multiprocessing leave without running atexit.
        self._at_child_exit = multiprocessing.util.Finalize(None, self._finalizer, exitpriority=0)


def _let_go(name: list[Callable[[], None]], use: list[Callable[[], None]]) -> None:
    # What has been cut off is done once more: removing a name twice does no harm. A use that was
    # not given back is missed by nobody but the collector, one given back twice is another's.
    for remove in name:
        remove()
    name.clear()
    while use:
        use.pop()()


def _remove(path: str, key: files.Key, owner: process.ProcessId) -> None:
    """Remove an arena's name if this process is its owner."""
    if owner == process.current():  # never in a forked child
        with suppress(OSError):  # nobody could act on it now; sweep() will
            leftovers.remove(path, key)
