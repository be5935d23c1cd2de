"""Tables on disk across a stop of the machine: what is known to have reached the disk.

While a file is in use the system writes its pages back in any order, so after a power failure or
a crash of the kernel nobody can tell which of them are those of the last moment. The header
therefore says whether the file was *clean*: everything was on the disk, and then the mark, made
by the last process that let the file go. The mark is taken away, on the disk too, before the
first change by the next one. A process that is killed leaves no mark, and needs none: its pages
are the system's, which goes on.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

import torch

from shmtable.errors import ArenaError, ArenaUncleanError
from shmtable.shm import clib, files, header, leftovers, places, process

_SYNCHRONOUS = {"linux": 4, "darwin": 0x10}  # MS_SYNC


def sync(fd: int, memory: torch.Tensor, spans: Sequence[tuple[int, int]], where: str) -> None:
    """Bring parts of a mapped file to the disk, one after the other; returns when they are there.

    Args:
        fd: the file.
        memory: uint8, all of it.
        spans: (offset, bytes).
        where: the file, for messages.

    Raises:
        ArenaError: the disk refuses.
    """
    types = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    page = os.sysconf("SC_PAGESIZE")
    flag, msync = _SYNCHRONOUS.get(sys.platform), clib.function("msync", *types)
    try:
        for offset, count in spans:
            if flag is None or msync is None:
                os.fsync(fd)
            elif msync(memory.data_ptr() + offset - offset % page, count + offset % page, flag):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
    except OSError as error:
        raise ArenaError(
            f"{where} cannot be brought to the disk: {error.strerror}; what it held before may "
            "be lost too: look after the disk",
            path=where,
        ) from error


def is_unclean(found: header.Header) -> bool:
    """Whether a file that nobody uses was in use when the machine stopped.

    Where the system cannot tell one run of the machine from the next, a file without the mark
    counts as such.
    """
    boot = process.boot_id()
    return found.words[header.CLEAN] != 1 and not (boot and found.words[header.BOOT_ID] == boot)


def unclean(where: str) -> ArenaUncleanError:
    """The error for such a file."""
    return ArenaUncleanError(
        f"{where} was in use when the machine stopped: nobody can tell which of its rows had "
        "reached the disk; attach with recover=True to keep what there is, or remove the file "
        "and restore() a stored one",
        path=where,
    )


def mark(path: str, key: files.Key) -> None:
    """Make the mark, if nobody uses the file any more; called when this process has let it go.

    Without an error where that cannot be told or done: then the file counts as in use.
    """
    if places.holds(path):  # a finaliser, in the middle of an attachment that unmarks it
        return
    with suppress(OSError), ExitStack() as stack:
        with places.name_lock(path):
            descriptor = files.open_file(path)
            stack.callback(descriptor.drop)
            unused = _if_unused(descriptor, key, lambda _: None)
        if unused:
            os.fsync(descriptor.fd)  # most of it, before anybody is kept waiting
            with places.name_lock(path):
                _if_unused(descriptor, key, _write_mark)


def _if_unused(descriptor: files.Descriptor, key: files.Key, act: Callable[[int], None]) -> bool:
    """Act while nobody else can come to use the file; under the name lock."""
    # Another thread has come back to it; in a forked child that lives on, its lock is still held.
    unused = (descriptor.users, descriptor.key) == (1, key) and leftovers.is_unused(descriptor.fd)
    if unused:
        act(descriptor.fd)
    # Who opens it in this process meanwhile shares the descriptor, and counts on its lock.
    leftovers.share(descriptor.fd)
    return unused


def _write_mark(fd: int) -> None:
    os.fsync(fd)
    os.pwrite(fd, struct.pack("<q", 1), 8 * header.CLEAN)
    os.fsync(fd)
