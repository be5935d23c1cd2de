"""The two locks that guard a table between processes and threads.

``RobustMutex`` is a process-shared, robust, error-checking pthread mutex in the arena's header:
when its holder dies the kernel tells the next one. ``PortableMutex`` is a POSIX record lock on
one byte of the file, beside an in-process lock: the kernel frees it when the process dies, and
tells nobody. With either, what an interrupted holder owes is remembered by the arena's dirty
flag, not by the lock.

Which kind guards an arena stands in its header; an attacher never chooses.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import fcntl
import os
import sys
import time
import weakref
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch

from shmtable.errors import ArenaDamagedError, SpecError
from shmtable.shm import clib, files, header, process

if TYPE_CHECKING:
    from shmtable.shm.arena import Arena

SLICE_S = 0.1  # how long one blocking call may keep Ctrl-C waiting
_PROCESS_SHARED = 1
_ROBUST = 1
_ERRORCHECK = 2  # glibc and musl agree on all three


class Status(enum.Enum):
    """What asking for a lock led to; the first two mean that it is held now."""

    ACQUIRED = "acquired"
    OWNER_DIED = "owner died"
    BUSY = "busy"
    DEADLOCK = "deadlock"


class Mutex(Protocol):
    """A lock between processes, as the guard needs it.

    Attributes:
        quick_try: called with ``token``; 0 means that the lock is held now and all is well.
        quick_release: called with ``token``; harmless when this thread does not hold the lock.
        token: what both are called with.
    """

    token: Any

    @property
    def quick_try(self) -> Callable[[Any], int]: ...

    @property
    def quick_release(self) -> Callable[[Any], object]: ...

    def try_acquire(self) -> Status:
        """Ask once."""

    def acquire(self, timeout_s: float) -> Status:
        """Wait, without the interpreter's lock, at most ``SLICE_S`` and at most ``timeout_s``."""

    def status(self, code: int) -> Status:
        """Judge an answer of ``quick_try``; to be called at once, since it completes the step."""

    def release(self) -> None:
        """Let go; harmless when this thread does not hold the lock."""

    def adopt(self) -> Status:
        """Take over a lock that this thread holds without knowing (DEADLOCK).

        Returns:
            OWNER_DIED, or BUSY where an interrupt had come before the lock was complete.
        """

    def settle(self) -> None:
        """Let go when it is unknown how far an interrupted ``try_acquire`` or ``acquire`` got."""


class Timespec(ctypes.Structure):
    """A struct timespec of a 64-bit system."""

    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def _quick(name: str) -> clib.Function:
    found = clib.function(name, ctypes.c_void_p, keep_gil=True)
    if found is None:
        raise SpecError(f"this system has no {name}; create the table with lock='portable'")
    return found


@cache
def robust_available() -> bool:
    """Whether this system has robust process-shared mutexes."""
    if sys.platform != "linux":
        return False
    try:
        initialise(torch.zeros(header.HEADER_BYTES, dtype=torch.uint8))
    except (OSError, SpecError):
        return False
    return True


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
        address = memory.data_ptr() + offset
        self.token = ctypes.c_void_p(address)
        self.quick_try: Callable[[Any], int] = _quick("pthread_mutex_trylock")
        self.quick_release: Callable[[Any], object] = _quick("pthread_mutex_unlock")
        self._consistent = _quick("pthread_mutex_consistent")
        # Blocks, so it lets other Python threads run meanwhile. Missing before glibc 2.30.
        self._clocklock = clib.function(
            "pthread_mutex_clocklock",
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.POINTER(Timespec),
        )

    def try_acquire(self) -> Status:
        return self.status(self.quick_try(self.token))

    def acquire(self, timeout_s: float) -> Status:
        timeout_s = min(max(timeout_s, 0.0), SLICE_S)
        if self._clocklock is None:
            return _poll(self.try_acquire, timeout_s)
        until = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(timeout_s * 1e9)
        limit = Timespec(*divmod(until, 1_000_000_000))
        return self.status(self._clocklock(self.token, time.CLOCK_MONOTONIC, limit))

    def status(self, code: int) -> Status:
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
        raise ArenaDamagedError(
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
        code = self.quick_try(self.token)
        # EDEADLK proves that this thread holds it. Only then may `consistent` be called: it
        # trusts its caller, and would take the mutex away from another holder.
        if code in (errno.EDEADLK, errno.EOWNERDEAD):
            self._consistent(self.token)
        if code != errno.EBUSY:
            self.quick_release(self.token)


class PortableMutex:
    """A record lock on one byte of a file, and a lock between this process's threads.

    Takes over one use of the descriptor, and keeps the file open for as long as it lives.
    """

    def __init__(self, descriptor: files.Descriptor, which: str, offset: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, descriptor.drop)
        self._which = which
        self._offset = offset
        self.token = None
        self._renew()
        process.after_fork(self._renew)

    def _renew(self) -> None:
        # A record lock is not inherited by a forked child, the gate's state would be.
        self._gate: Any = self._descriptor.gate(self._which)

    def quick_try(self, _: None) -> int:
        gate = self._gate
        # The RLock sets its owner in C, in one go with being taken: there is no moment in which
        # an interrupt finds it taken by nobody.
        if gate._is_owned():
            return errno.EDEADLK
        if not gate.acquire(False):
            return errno.EBUSY
        if self._take_byte() is Status.ACQUIRED:
            return 0
        gate.release()
        return errno.EBUSY

    def _take_byte(self) -> Status:
        try:
            fcntl.lockf(self._descriptor.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._offset)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return Status.BUSY
            raise
        return Status.ACQUIRED

    def try_acquire(self) -> Status:
        return self.status(self.quick_try(None))

    def acquire(self, timeout_s: float) -> Status:
        deadline = time.monotonic() + min(max(timeout_s, 0.0), SLICE_S)
        if self._gate._is_owned():
            return Status.DEADLOCK
        if not self._gate.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            return Status.BUSY
        # Nobody can wait for a record lock and keep a time limit: ask again and again. The gate
        # stays ours meanwhile, so that the threads of this process take turns.
        status = _poll(self._take_byte, deadline - time.monotonic())
        if status is Status.BUSY:
            self._gate.release()
        return status

    def status(self, code: int) -> Status:
        if code == 0:
            return Status.ACQUIRED
        return Status.DEADLOCK if code == errno.EDEADLK else Status.BUSY

    def quick_release(self, _: None) -> None:
        gate = self._gate
        if gate._is_owned():
            fcntl.lockf(self._descriptor.fd, fcntl.LOCK_UN, 1, self._offset)
            gate.release()

    def release(self) -> None:
        self.quick_release(None)

    def adopt(self) -> Status:
        # The interrupt may have come between the gate and the byte.
        if self._take_byte() is Status.ACQUIRED:
            return Status.OWNER_DIED
        self._gate.release()
        return Status.BUSY

    def settle(self) -> None:
        self.quick_release(None)


def _poll(ask: Callable[[], Status], timeout_s: float) -> Status:
    """Ask until the answer is not BUSY, at growing intervals of 50 us to 2 ms."""
    deadline = time.monotonic() + timeout_s
    pause_s = 50e-6
    while True:
        status = ask()
        left_s = deadline - time.monotonic()
        if status is not Status.BUSY or left_s <= 0:
            return status
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, 2e-3)


def make_mutex(arena: Arena, which: str) -> Mutex:
    """The arena's lock for its index ("table") or for reserving memory ("grow")."""
    offset = header.LOCKS[which].mutex * 8
    if arena.lock_kind == "robust":
        return RobustMutex(arena.memory, offset)
    return PortableMutex(arena.lock_file(), which, offset)
