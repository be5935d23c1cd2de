"""The robust mutex: when its holder dies, the kernel tells the next one.

A process-shared, robust, error-checking pthread mutex in the arena's header.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from shmtable.errors import ArenaDamagedError, SpecError
from shmtable.shm import clib, header
from shmtable.shm.mutex import SLICE_S, Status, poll

_PROCESS_SHARED = 1
_ROBUST = 1
_ERRORCHECK = 2  # glibc and musl agree on all three


def _quick(name: str) -> clib.Function:
    """A function of one pointer, which is given as ``byref`` makes it: declared types take longer.

    Raises:
        SpecError: there is none of this name.
    """
    found = clib.function(name, keep_gil=True)
    if found is None:
        raise SpecError(f"this system has no {name}; create the table with lock='portable'")
    return found


@cache
def robust_available() -> bool:
    """Whether this system has robust process-shared mutexes."""
    if sys.platform != "linux":
        return False
    try:
        initialise(torch.zeros(header.HEADER_BYTES, dtype=torch.uint8, device="cpu"))
    except (OSError, SpecError):
        return False
    return True


def initialise(memory: torch.Tensor) -> None:
    """Make both mutexes of a header new; nobody may be using them.

    Args:
        memory: uint8, at least the header.
    """
    attributes = ctypes.create_string_buffer(64)
    steps: list[tuple[str, tuple[int, ...]]] = [
        ("pthread_mutexattr_init", ()),
        ("pthread_mutexattr_setpshared", (_PROCESS_SHARED,)),
        ("pthread_mutexattr_setrobust", (_ROBUST,)),
        ("pthread_mutexattr_settype", (_ERRORCHECK,)),
    ]
    for name, values in steps:
        call = clib.function(name, ctypes.c_void_p, *[ctypes.c_int] * len(values), keep_gil=True)
        _expect_zero(name, None if call is None else call(attributes, *values))
    init = clib.function("pthread_mutex_init", *[ctypes.c_void_p] * 2, keep_gil=True)
    for words in header.LOCKS.values():
        area = memory[words.mutex * 8 : words.mutex * 8 + 64]
        area.zero_()
        _expect_zero("pthread_mutex_init", init and init(area.data_ptr(), attributes))
    _expect_zero("pthread_mutexattr_destroy", _quick("pthread_mutexattr_destroy")(attributes))


def _expect_zero(name: str, result: int | None) -> None:
    if result is None:
        raise SpecError(f"this system has no {name}; create the table with lock='portable'")
    if result:
        raise OSError(result, f"{name}: {os.strerror(result)}; create with lock='portable'")


class RobustMutex:
    """A robust mutex in mapped memory; keeps the mapping alive."""

    def __init__(self, memory: torch.Tensor, offset: int) -> None:
        self._memory = memory
        self._address = address = memory.data_ptr() + offset
        _in_use[address] = _in_use.get(address, 0) + 1
        weakref.finalize(self, _retire, memory, address).atexit = False
        self.token = ctypes.byref(ctypes.c_char.from_address(address))
        self.quick_try: Callable[[Any], int] = _quick("pthread_mutex_trylock")
        self.quick_release: Callable[[Any], object] = _quick("pthread_mutex_unlock")
        self._consistent = _quick("pthread_mutex_consistent")
        # Blocks, so it lets other Python threads run meanwhile. Missing before glibc 2.30.
        self._clocklock = clib.function(
            "pthread_mutex_clocklock",
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.POINTER(clib.Timespec),
        )

    def try_acquire(self) -> Status:
        return self.status(self.quick_try(self.token))

    def acquire(self, timeout_s: float) -> Status:
        timeout_s = min(max(timeout_s, 0.0), SLICE_S)
        if self._clocklock is None:
            return poll(self.try_acquire, timeout_s)
        until = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(timeout_s * 1e9)
        limit = clib.Timespec(*divmod(until, 1_000_000_000))
        return self.status(self._clocklock(self.token, time.CLOCK_MONOTONIC, limit))

    def status(self, code: int) -> Status:
        if self._address in _ruined:
            raise self._damaged(errno.ENOTRECOVERABLE)
        if code == errno.EOWNERDEAD:
            # Before anything else, repair included: unlocking without it would make the mutex
            # unusable for ever.
            self._consistent(self.token)
            return Status.OWNER_DIED
        if code == 0:
            return Status.ACQUIRED
        if code in (errno.EBUSY, errno.ETIMEDOUT):
            return Status.BUSY
        if code == errno.EDEADLK:
            return Status.DEADLOCK
        _ruined.add(self._address)
        raise self._damaged(code)

    def _damaged(self, code: int) -> ArenaDamagedError:
        return ArenaDamagedError(
            f"the table's lock answers {errno.errorcode.get(code, code)} ({os.strerror(code)}): "
            "its bytes are damaged; create the table again",
            code=code,
        )

    def release(self) -> None:
        self.quick_release(self.token)

    def adopt(self) -> Status:
        self._consistent(self.token)  # refused, and harmless, when it is consistent already
        return Status.OWNER_DIED

    def settle(self) -> None:
        if self._address in _ruined:
            return
        code = self.quick_try(self.token)
        # EDEADLK proves that this thread holds it. Only then may `consistent` be called: it
        # trusts its caller, and would take the mutex away from another holder.
        if code in (errno.EDEADLK, errno.EOWNERDEAD):
            self._consistent(self.token)
        if code in (0, errno.EDEADLK, errno.EOWNERDEAD):
            self.quick_release(self.token)


# Address to the number of RobustMutex objects for it.
_in_use: dict[int, int] = {}
# Mutexes that nobody can repair. The C library's trylock takes such a one, says that it did not,
# and crashes when it is then given back: never touched again.
_ruined: set[int] = set()
_kept: list[torch.Tensor] = []


def _retire(memory: torch.Tensor, address: int) -> None:
    """Before its memory may be unmapped, take an orphaned mutex off its thread's list.

    The C library chains the robust mutexes that a thread holds through the mutexes themselves.
    Were one unmapped while it is held, that thread's next lock would write into the gap.
    """
    _in_use[address] -= 1
    if _in_use[address]:
        return
    del _in_use[address]
    if address in _ruined:
        _ruined.discard(address)
        return
    token = ctypes.c_void_p(address)
    code = _quick("pthread_mutex_trylock")(token)
    if code in (errno.EDEADLK, errno.EOWNERDEAD):
        _quick("pthread_mutex_consistent")(token)
    if code in (0, errno.EDEADLK, errno.EOWNERDEAD):
        _quick("pthread_mutex_unlock")(token)
        return
    first: Any = memory[: header.HEADER_BYTES].numpy()
    words = memoryview(first).cast("q")
    if os.getpid() in [words[lock.note_pid] for lock in header.LOCKS.values()]:
        _kept.append(memory)  # on the list of another thread of ours, perhaps: never unmap it
