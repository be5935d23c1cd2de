"""The portable mutex: the kernel frees it when its holder dies, and tells nobody.

A POSIX record lock on one byte of a file keeps processes apart, an ``RLock`` the threads of one.
"""

from __future__ import annotations

import errno
import fcntl
import time
import weakref
from typing import Any

from shmtable.errors import ClosedError
from shmtable.shm import files, process
from shmtable.shm.mutex import SLICE_S, Status, poll


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
        fd = self._descriptor.fd
        if fd < 0:  # the interpreter is ending, and has closed all there was
            raise ClosedError("the table was closed just now; make or attach it again")
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._offset)
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
        status = poll(self._take_byte, deadline - time.monotonic())
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
            if self._descriptor.fd >= 0:
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
