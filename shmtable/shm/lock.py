"""The two locks that guard a table between processes and threads.

Which kind guards an arena stands in its header; an attacher never chooses. With either, what an
interrupted holder owes is remembered by the arena's dirty word, not by the lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmtable.errors import SpecError
from shmtable.shm import header
from shmtable.shm.mutex import Mutex, Status
from shmtable.shm.portable import PortableMutex
from shmtable.shm.robust import RobustMutex, robust_available

if TYPE_CHECKING:
    from shmtable.shm.arena import Arena

__all__ = [
    "Mutex",
    "PortableMutex",
    "RobustMutex",
    "Status",
    "check_kind",
    "make_mutex",
    "robust_available",
]


def check_kind(kind: str) -> None:
    """Refuse a lock kind that is unknown, or that this system does not have."""
    if kind not in header.LOCK_KINDS:
        raise SpecError(f"lock={kind!r} must be 'robust' or 'portable'", lock=kind)
    if kind == "robust" and not robust_available():
        raise SpecError(
            "lock='robust' needs robust process-shared mutexes, which this system does not have; "
            "pass lock='portable'",
            lock=kind,
        )


def make_mutex(arena: Arena, which: str) -> Mutex:
    """The arena's lock for its index ("table") or for reserving memory ("grow")."""
    offset = header.LOCKS[which].mutex * 8
    if arena.lock_kind == "robust":
        return RobustMutex(arena.memory, offset)
    return PortableMutex(arena.lock_file(), which, offset)
