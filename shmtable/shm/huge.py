"""Pages of 2 MiB instead of 4 KiB, where Linux grants them.

A sample takes rows from all over a table. With small pages the processor has to walk a tree in
memory to find out where nearly each of them lies; with large ones it mostly knows. Shared memory
has them by itself only where an administrator has asked for them, but a process may ask for
particular ones (MADV_COLLAPSE, Linux 6.1). Two things are needed: the file is mapped to an address
that is a multiple of 2 MiB, and its memory is asked for block by block while there is next to
nothing to be copied. Both are attempts: where one fails, pages stay small and nothing else changes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from shmtable.shm import clib

BLOCK_BYTES = 2 << 20
_PAGE_BYTES = 4096
_ONE_CALL_BYTES = 16 << 20  # a signal is answered between two calls
# A block takes a tenth of a millisecond where memory lies ready. Where it must be made free first
# an add that makes the table grow shall not wait for it.
_SLOW_BLOCK_S = 0.02
_NONE, _PRIVATE, _ANONYMOUS, _NORESERVE = 0, 0x02, 0x20, 0x4000
_COLLAPSE = 25
_FAILED = ctypes.c_void_p(-1).value


@contextmanager
def hole(total_bytes: int) -> Iterator[None]:
    """Let the next mapping of so many bytes start at a multiple of a block, as far as that goes.

    The system puts a mapping into the highest gap that it fits into. So a gap is made that is just
    as large: a larger piece of address space is taken, and its aligned part is given back.
    """
    margins: list[tuple[int, int]] = []
    take = clib.function(
        "mmap",
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
        restype=ctypes.c_void_p,
    )
    leave = clib.function("munmap", ctypes.c_void_p, ctypes.c_size_t)
    if may_be() and total_bytes >= BLOCK_BYTES and take is not None and leave is not None:
        flags = _PRIVATE | _ANONYMOUS | _NORESERVE
        first = take(None, total_bytes + BLOCK_BYTES, _NONE, flags, -1, 0)
        if first not in (None, _FAILED):
            start = -(-first // BLOCK_BYTES) * BLOCK_BYTES
            end = start + -(-total_bytes // _PAGE_BYTES) * _PAGE_BYTES
            margins = [(first, start - first), (end, first + total_bytes + BLOCK_BYTES - end)]
            leave(start, end - start)
    try:
        yield
    finally:
        for address, count in margins:
            if count > 0 and leave is not None:
                leave(address, count)


def take(fd: int, memory: torch.Tensor, blocks: Sequence[tuple[int, int]]) -> None:
    """Take large pages; what has been written there stays as it is, whoever uses it meanwhile.

    Args:
        fd: the file.
        memory: uint8, all of it, mapped.
        blocks: (offset, bytes) of whole blocks; there has to be room for them.
    """
    address = memory.data_ptr()
    advise = clib.function("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if advise is None or not may_be() or address % BLOCK_BYTES:
        return
    for offset, count in blocks:
        for start in range(offset, offset + count, _ONE_CALL_BYTES):
            size = min(_ONE_CALL_BYTES, offset + count - start)
            began = time.monotonic()
            try:
                for block in range(start, start + size, BLOCK_BYTES):
                    os.posix_fallocate(fd, block, _PAGE_BYTES)  # an empty block is refused
            except OSError:
                return
            refused = advise(address + start, size, _COLLAPSE) and ctypes.get_errno()
            slow = time.monotonic() - began > _SLOW_BLOCK_S * size / BLOCK_BYTES
            # EAGAIN: of some blocks, at the moment.
            if slow or refused not in (0, errno.EAGAIN):
                return


def may_be() -> bool:
    """Whether this system's pages and numbers are those that this module knows."""
    return sys.platform == "linux" and os.sysconf("SC_PAGESIZE") == _PAGE_BYTES
