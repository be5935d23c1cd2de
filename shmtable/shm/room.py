"""Address space and pages: mapping an arena's file, and taking memory for parts of it."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from shmtable.errors import CapacityError, SharedMemoryError
from shmtable.shm import budget, clib, header, huge

CHUNK_BYTES = 16 << 20  # at most this much per call: other processes wait for the grow lock
SMALLEST_CHUNK_BYTES = 256 << 10
_DONT_DUMP = 16  # MADV_DONTDUMP
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


# By (device, inode): what something still uses, even after its arena was closed.
_mappings: weakref.WeakValueDictionary[tuple[int, int], torch.Tensor]
_mappings = weakref.WeakValueDictionary()


def map_file(fd: int, total_bytes: int) -> torch.Tensor:
    """Map a whole file, by its descriptor; uint8 [total_bytes].

    A file that this process has mapped already is not mapped again: of a lock with two addresses
    nobody could tell where it is held, and mapping opens and closes the file, upon which the
    system drops this process's record locks.

    Raises:
        SharedMemoryError: the address space is refused.
    """
    status = os.fstat(fd)
    key = status.st_dev, status.st_ino
    known = _mappings.get(key)
    if known is not None and known.numel() == total_bytes:
        return known
    # By descriptor, since the path may name another file by now. torch opens it once more and
    # closes that descriptor again.
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    try:
        with huge.hole(total_bytes):
            memory = torch.from_file(
                f"{folder}/{fd}", shared=True, size=total_bytes, dtype=torch.uint8, device="cpu"
            )
    except (RuntimeError, MemoryError) as error:
        raise SharedMemoryError(
            f"{total_bytes} bytes of address space are refused ({error}); raise the limit "
            "(ulimit -v) or make the table smaller",
            asked_bytes=total_bytes,
        ) from error
    if sys.platform == "linux":
        advise = clib.function("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        if advise is not None:
            advise(memory.data_ptr(), total_bytes, _DONT_DUMP)  # keep it out of core files
    _mappings[key] = memory
    return memory


def map_largest(
    fd: int, plan: Callable[[int], tuple[int, dict[str, Any]]]
) -> tuple[int, dict[str, Any], torch.Tensor]:
    """Size and map a new file with the largest address factor that the system grants.

    Returns:
        (factor, the plan's description, uint8 [total bytes]).

    Raises:
        SharedMemoryError: not even factor 1 is granted.
    """
    refused: Exception | None = None
    for factor in header.FACTORS:
        total_bytes, json_object = plan(factor)
        needed = header.header_bytes(json_object)
        if total_bytes < needed:
            raise CapacityError(
                f"an arena of {total_bytes} bytes cannot hold its header of {needed}; plan more",
                total_bytes=total_bytes,
            )
        try:
            os.ftruncate(fd, total_bytes)
            return factor, json_object, map_file(fd, total_bytes)
        except (OSError, OverflowError) as error:
            refused = error
    raise SharedMemoryError(
        f"{total_bytes} bytes of address space are refused even without room to grow ({refused}); "
        f"{budget.REMEDY}",
        asked_bytes=total_bytes,
    ) from refused


def reserve(
    fd: int,
    spans: Sequence[tuple[int, int]],
    memory: torch.Tensor,
    blocks: Sequence[tuple[int, int]],
    *,
    in_memory: bool,
    where: str,
) -> None:
    """Take pages for spans of the file that were never taken before.

    Args:
        fd: the file.
        spans: (offset, bytes), within the file.
        memory: uint8, the whole file.
        blocks: (offset, bytes) that are complete with these spans; see ``huge``.
        in_memory: the file's pages are RAM, not disk.
        where: the file, for messages.

    Raises:
        SharedMemoryError: no room; what was taken until then stays taken and harmless.
    """
    asked = sum(count for _, count in spans)
    if asked <= 0:
        return
    if in_memory:
        budget.check_budget(asked)
    status = os.fstatvfs(fd)
    # A memfd's file system has no size of its own and reports none.
    if status.f_blocks and asked > status.f_bavail * status.f_frsize:
        raise _no_room(fd, asked, where)
    if in_memory:
        huge.take(fd, memory, blocks)
    for offset, count in spans:
        _reserve_span(fd, offset, count, asked, where)


def settle(
    fd: int, reserved: Sequence[tuple[int, int]], beyond: tuple[int, int], where: str
) -> None:
    """After a stop of the machine: reserve again what was, and blank what lies beyond.

    The marks may have reached the disk without the pages they speak of, and pages without their
    marks.

    Args:
        fd: the file.
        reserved: (offset, bytes) of what must be there.
        beyond: (offset, bytes) of what must read as zeros.
        where: the file, for messages.

    Raises:
        SharedMemoryError: no room.
    """
    asked = sum(count for _, count in reserved)
    for offset, count in reserved:
        _reserve_span(fd, offset, count, asked, where)
    offset, end = beyond[0], sum(beyond)
    while (offset := _next_data(fd, offset, end)) < end:
        size = min(1 << 20, end - offset)
        if os.pread(fd, size, offset).strip(b"\0"):
            os.pwrite(fd, bytes(size), offset)
        offset += size


def _next_data(fd: int, offset: int, end: int) -> int:
    """Where the next bytes are that may be other than zero; ``end`` for nowhere before it."""
    try:
        return min(os.lseek(fd, offset, os.SEEK_DATA), end) if offset < end else end
    except OSError as error:
        return end if error.errno == errno.ENXIO else offset  # a system that cannot tell


def _reserve_span(fd: int, offset: int, count: int, asked: int, where: str) -> None:
    end = offset + count
    chunk = CHUNK_BYTES
    while offset < end:
        size = min(chunk, end - offset)
        code = _allocate(fd, offset, size)
        if code == errno.EINTR:
            # The kernel undoes an interrupted call as a whole, so under a steady timer signal
            # large ones would never finish.
            chunk = max(chunk // 2, SMALLEST_CHUNK_BYTES)
            continue
        if code in _NO_ROOM:
            raise _no_room(fd, asked, where)
        if code:
            raise OSError(code, f"{where}: reserving {size} bytes: {os.strerror(code)}")
        offset += size


def _allocate(fd: int, offset: int, size: int) -> int:
    """Reserve one chunk; 0 or an errno. Never raises for a full file system."""
    allocate = None
    if ctypes.sizeof(ctypes.c_long) == 8:  # off_t is a long there
        types = (ctypes.c_int, ctypes.c_long, ctypes.c_long)
        # Not os.posix_fallocate: it would repeat an interrupted call at full size for ever.
        allocate = clib.function("posix_fallocate", *types)
    if allocate is not None:
        return allocate(fd, offset, size)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, offset, size)
        else:
            _fill_holes(fd, offset, size)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _fill_holes(fd: int, offset: int, size: int) -> None:
    """Write zeros where the file reads as zeros, for systems that cannot reserve."""
    step = 1 << 20
    for start in range(offset, offset + size, step):
        block = os.pread(fd, min(step, offset + size - start), start)
        for page in range(0, len(block), 4096):
            piece = block[page : page + 4096]
            if not piece.strip(b"\0"):
                os.pwrite(fd, piece, start + page)


def _no_room(fd: int, asked: int, where: str) -> SharedMemoryError:
    status = os.fstatvfs(fd)
    free = status.f_bavail * status.f_frsize
    return SharedMemoryError(
        f"{where}: {asked} bytes are needed, its file system has {free} left; make it larger "
        "(for /dev/shm: mount -o remount,size=..., docker run --shm-size=...) or put the table on "
        "a larger disk with directory=",
        asked_bytes=asked,
        free_bytes=free,
    )
