"""Whether a table that is in use is still sound, asked of its memory and never of an error.

An error may be anybody's mistake, and a table must not go for one. So an error only says that a
look is worth its while, and how much of one: a glance takes some 10 µs, a look 100, and a walk
through the index O(sequences) under the table's lock.
"""

from __future__ import annotations

import os
import struct

from shmtable.errors import (
    ArenaDamagedError,
    ArenaError,
    ClosedError,
    LockReentryError,
    LockTimeoutError,
    ShmTableError,
    StrategyError,
)
from shmtable.index import refuse_impossible
from shmtable.protocols.header import extra_rows
from shmtable.shm import files, header
from shmtable.table import ArrayMemoryTable

# What says nothing of the memory: the table is let go, somebody else is at it, or there is no room.
_SAYS_NOTHING = (ClosedError, LockTimeoutError, LockReentryError, MemoryError)
_TID, _OWNER_DIED = 0x3FFFFFFF, 0x40000000  # of a robust mutex's word, as the kernel defines them


def glance(table: ArrayMemoryTable) -> str:
    """What is wrong with header or counters; empty for nothing. Takes no lock."""
    try:
        core = table._core
        arena = core.arena
        in_use = arena.in_use()
        fd = arena._descriptor.fd
        # By reading, as a file that has been cut short must not be touched.
        first = os.pread(fd, header.HEADER_BYTES, 0)
        words = header.parse(first, os.fstat(fd).st_size, arena.where)
        del in_use
        number = struct.pack("<qq", words[header.ID_LOW], words[header.ID_HIGH])
        if int.from_bytes(number, "little") != arena.id:
            return f"{arena.where} has got the id of another table"
        refuse_impossible(arena.words, core.layout, extra_rows(core.schema), arena.where)
    except ClosedError:
        return ""
    except ArenaError as error:
        return str(error)
    return ""


def look(table: ArrayMemoryTable) -> str:
    """What is wrong with header, counters, description or lock; empty for nothing."""
    if wrong := glance(table):
        return wrong
    try:
        arena = table._core.arena
        in_use = arena.in_use()
        files.read_header(arena._descriptor.fd, arena.where)
        del in_use
    except ClosedError:
        return ""
    except ArenaError as error:
        return str(error)
    return ruined_lock(table)


def ruined_lock(table: ArrayMemoryTable) -> str:
    """Why nobody can have the lock any more; empty where somebody can, or has it just now."""
    try:
        table._core.guard.run(_nothing, timeout_s=0.0)
    except LockTimeoutError:
        return _orphaned(table)
    except _SAYS_NOTHING:
        return ""
    except Exception as error:  # of a repair that was due, and that damage makes impossible
        return f"{type(error).__name__}: {error}"
    return ""


def _orphaned(table: ArrayMemoryTable) -> str:
    """Says so where the lock's holder is gone, and the lock was not handed on.

    The kernel finds the locks of a thread that ends by a list that runs through their memory. Where
    damage has cut the list, a lock stays that thread's for ever. It does so before the thread's
    number is free, so a number that nobody has proves it.
    """
    arena = table._core.arena
    place = header.LOCKS["table"]
    tid = arena.words[place.mutex] & _TID
    # A C library may keep it elsewhere; then these two differ.
    if arena.lock_kind != "robust" or tid == 0 or tid != arena.words[place.note_tid]:
        return ""
    try:
        os.kill(tid, 0)
    except ProcessLookupError:
        if arena.words[place.mutex] & (_TID | _OWNER_DIED) == tid:
            return f"its lock is held by thread {tid}, which is gone"
    except OSError:
        pass
    return ""


def walk(table: ArrayMemoryTable) -> str:
    """What is wrong anywhere in the index, too; empty for nothing."""
    if wrong := look(table):
        return wrong
    try:
        findings = table.check()
    except _SAYS_NOTHING:
        return ""
    except Exception as error:
        return f"its index cannot be walked ({type(error).__name__}: {error})"
    return "; ".join(str(finding) for finding in findings[:3])


def behind(error: Exception, table: ArrayMemoryTable) -> str:
    """The damage that an error of this table comes of; empty where it comes of something else.

    The table's own refusals cost a glance only: some programs live by them. What a sound table
    never raises is worth a walk.
    """
    if isinstance(error, LockTimeoutError):
        return glance(table) or ruined_lock(table)
    ours = isinstance(error, ShmTableError)
    if ours and not isinstance(error, (ArenaDamagedError, StrategyError)):
        return glance(table)
    return walk(table)


def _nothing() -> None:
    pass
