"""The bell: waiting, without holding anything, for a section to change something.

One 32-bit word in the header is bumped by every section that others may wait for. A waiter
reads it under the lock, lets the lock go, and sleeps until the word is another: by the kernel's
futex where there is one, else by looking again and again. Not a condition variable: a waiter
that is killed inside one can wedge it for everybody.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
import time
from functools import cache
from typing import TYPE_CHECKING

from shmtable.errors import SpecError
from shmtable.shm import clib, header
from shmtable.shm.mutex import SLICE_S

if TYPE_CHECKING:
    from shmtable.shm.arena import Arena

LONGEST_S = 0.5  # whoever rang may have died before waking anybody: look again by yourself
_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98}
_WAIT, _WAKE = 0, 1  # shared between processes: without FUTEX_PRIVATE_FLAG
_EVERYBODY = 2**31 - 1


@cache
def futex_number() -> int | None:
    """The number of the futex system call, or None where waiting has to poll."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    return _FUTEX_NUMBERS.get(platform.machine())


class Bell:
    """The waiting word of an arena; keeps the mapping alive.

    Attributes:
        rung: a section of this process changed the word while somebody may be asleep; whoever
            leaves a section and finds it set wakes them.
    """

    def __init__(self, arena: Arena, kind: str | None = None) -> None:
        """Args: kind is "futex", "poll", or None for the better one that this system has."""
        if kind not in (None, "futex", "poll"):
            raise SpecError(f"bell kind {kind!r} must be 'futex' or 'poll'", kind=kind)
        self._memory = arena.memory
        # As 32-bit halves: the word, and a hint that somebody may be asleep.
        self._halves = arena.words.cast("B").cast("I")
        self._word = header.BELL * 2
        self._hint = self._word + 1
        self._address = arena.memory.data_ptr() + header.BELL * 8
        self._number = None if kind == "poll" else futex_number()
        types = (
            ctypes.c_long,
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_uint32,
            ctypes.POINTER(clib.Timespec),
            ctypes.c_void_p,
            ctypes.c_int,
        )
        self._sleep = clib.function("syscall", *types, restype=ctypes.c_long)
        self._wake = clib.function("syscall", *types, restype=ctypes.c_long, keep_gil=True)
        if self._number is None or self._sleep is None or self._wake is None:
            if kind == "futex":
                raise SpecError("this system has no futex that shmtable knows; use kind='poll'")
            self._number = None
        self.rung = False

    def ring_locked(self) -> None:
        """Change the word; by the holder of the lock, as its last store but one."""
        halves = self._halves
        halves[self._word] = (halves[self._word] + 1) & 0xFFFFFFFF
        if halves[self._hint]:
            halves[self._hint] = 0
            self.rung = True

    def seen_locked(self) -> int:
        """The word, to wait for its change later; the caller holds the lock."""
        self._halves[self._hint] = 1
        return self._halves[self._word]

    def wake(self) -> None:
        """Wake everybody asleep; without the lock, or they would only queue up for it."""
        self.rung = False
        if self._number is not None and self._wake is not None:
            self._wake(self._number, self._address, _WAKE, _EVERYBODY, None, None, 0)

    def wait(self, seen: int, timeout_s: float) -> None:
        """Sleep until the word is not ``seen``, at most ``timeout_s`` and at most 0.5 s.

        A return proves nothing: the caller looks again under the lock.

        Args:
            seen: what :meth:`seen_locked` returned.
            timeout_s: longest sleep in seconds.
        """
        deadline = time.monotonic() + min(timeout_s, LONGEST_S)
        pause_s = 200e-6
        while self._halves[self._word] == seen:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            if self._number is None:
                time.sleep(min(pause_s, left_s))
                pause_s = min(pause_s * 1.5, 10e-3)
            else:
                self._sleep_slice(seen, min(left_s, SLICE_S))

    def _sleep_slice(self, seen: int, slice_s: float) -> None:
        if self._sleep is None:
            return
        limit = clib.Timespec(0, int(slice_s * 1e9))
        result = self._sleep(self._number, self._address, _WAIT, seen, limit, None, 0)
        if result == -1 and ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
            self._number = None  # a sandbox forbids it: look again and again from now on
