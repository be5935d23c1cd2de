"""The guard: the only place that takes a table's lock, runs a section and lets the lock go.

Three things can go wrong around a lock in Python, and all are dealt with here.

* The holder's process dies. The lock comes free (the kernel sees to it); what it left half done
  shows in the arena's dirty word, and whoever enters next repairs first.
* An exception, Ctrl-C among them, arrives between any two bytecodes. Asking for the lock stands
  inside the ``try``, so that nothing can come between having it and promising to give it back;
  giving it back when it was never had is harmless.
* The section is entered again by the same thread (a signal handler, a finaliser, a user's
  strategy that calls the table). The lock answers EDEADLK; the stack tells whether there is an
  outer section, which must not be disturbed, or whether the lock was orphaned by an interrupt.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from shmtable.errors import LockReentryError, LockTimeoutError
from shmtable.shm import header, process
from shmtable.shm.futex import Bell
from shmtable.shm.lock import make_mutex
from shmtable.shm.mutex import SLICE_S, Mutex, Status

if TYPE_CHECKING:
    from shmtable.shm.arena import Arena

T = TypeVar("T")
FORK_PAUSE_S = 0.5e-3
# So often a lock that is taken is asked for again before this thread goes to sleep: about 60 µs, in
# which most sections end; being put to sleep and woken up takes as long. On one processor, whoever
# has the lock could not go on meanwhile.
_TRIES = 100
_LABELS = {"table": "lock", "grow": "growth lock"}
FORK_WAIT_S = 0.3  # a holder that takes longer is another process, and no harm to a fork


class _ThreadNumbers(dict[int, int]):
    """Python's thread identity to the system's thread number, which costs a system call."""

    def __missing__(self, ident: int) -> int:
        if len(self) > 1000:
            self.clear()  # identities of threads long gone
        self[ident] = number = threading.get_native_id()
        return number


def _later(_: Any) -> int:
    """Stands in for the attempt to take the lock while a fork is being prepared."""
    return errno.EBUSY


class _Unsure:
    """Leaves a section of which an interrupt has left unknown whether it holds the lock.

    Apart from the guard, which would otherwise refer to itself and stay until the collector runs.
    """

    def __init__(self, mutex: Mutex, key: tuple[int, str]) -> None:
        self._mutex = mutex
        self._key = key

    def leave(self, _: Any) -> None:
        if not _is_inside(self._key, sys._getframe(2)):
            self._mutex.settle()


def _is_inside(key: tuple[int, str], frame: FrameType | None) -> bool:
    """Whether a call of ``run`` for that lock is on the stack, from ``frame`` outwards."""
    code = Guard.run.__code__
    while frame is not None:
        if frame.f_code is code and frame.f_locals["self"]._key == key:
            return True
        frame = frame.f_back
    return False


def is_inside_any() -> bool:
    """Whether this thread is inside a section, of whichever lock: then it must not wait."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is Guard.run.__code__:
            return True
        frame = frame.f_back
    return False


class Guard:
    """Runs critical sections under one lock of an arena.

    Attributes:
        bell: the arena's waiting word; what a section rings is heard when it has been left.
    """

    __slots__ = (
        "__weakref__",
        "_company",
        "_dirty",
        "_forking",
        "_key",
        "_leave",
        "_mutex",
        "_note_pid",
        "_note_since_ns",
        "_note_tid",
        "_numbers",
        "_pid",
        "_release",
        "_repair",
        "_token",
        "_tries",
        "_try",
        "_waited_ns",
        "_waits",
        "_which",
        "_words",
        "bell",
    )

    def __init__(
        self,
        arena: Arena,
        which: str,
        repair: Callable[[], None],
        company: Callable[[], str] | None = None,
    ) -> None:
        """For one lock of an arena.

        Args:
            arena: whose lock.
            which: "table" or "grow".
            repair: makes the arena whole again, under the lock.
            company: says who else is there, for the message when the lock cannot be had.
        """
        self._company = company
        self._mutex = make_mutex(arena, which)
        self._release = self._mutex.quick_release
        self._token = self._mutex.token
        self._words = arena.words
        self._which = which
        self._key = (arena.id, which)  # several guards of one lock know each other by it
        self._leave = _Unsure(self._mutex, self._key).leave
        place = header.LOCKS[which]
        self._dirty = place.dirty
        self._note_pid, self._note_tid = place.note_pid, place.note_tid
        self._note_since_ns = place.note_since_ns
        self._waits, self._waited_ns = place.waits, place.waited_ns
        self._repair = repair
        self.bell = Bell(arena)
        self._renew()
        process.around_fork(self._before_fork, self._after_fork)
        process.after_fork(self._renew)

    def run(self, body: Callable[..., T], *args: Any, timeout_s: float | None = 60.0) -> T:
        """Run ``body(*args)`` under the lock; repair first if the last section was cut off.

        Args:
            body: the section; makes no call that blocks. It may raise: what it left half done
                (dirty word set) is repaired by the next one.
            timeout_s: longest wait for the lock, None for ever.

        Returns:
            What ``body`` returns.

        Raises:
            LockTimeoutError: somebody else held the lock for ``timeout_s``.
            LockReentryError: called from inside a section of this guard, by the same thread.
        """
        leave: Callable[[Any], object] = self._leave
        try:
            # Until `leave` is the plain release, an interrupt leaves it unknown what we hold.
            code = self._try(self._token)
            if code:
                self._wait(code, timeout_s)
            leave = self._release
            words = self._words
            words[self._note_pid] = self._pid
            words[self._note_tid] = self._numbers[threading.get_ident()]
            words[self._note_since_ns] = time.monotonic_ns()
            if words[self._dirty]:
                self._repair()
            return body(*args)
        finally:
            try:
                leave(self._token)
            except BaseException:  # an interrupt came first: once more, then let it through
                leave(self._token)
                raise
            if self.bell.rung:
                self.bell.wake()

    # -- the slow path ---------------------------------------------------------------------------

    def _wait(self, code: int, timeout_s: float | None) -> None:
        """Return holding the lock, made consistent; or raise without touching it."""
        began = time.monotonic()
        busy = code == errno.EBUSY
        for _ in range(self._tries):
            if code != errno.EBUSY:
                break
            code = self._try(self._token)
        status = self._mutex.status(code)
        while status is not Status.ACQUIRED and status is not Status.OWNER_DIED:
            if status is Status.DEADLOCK:
                if _is_inside(self._key, sys._getframe(2)):
                    raise LockReentryError(
                        f"the table's {_LABELS[self._which]} is held by this very call further up; "
                        "a strategy, signal handler or finaliser must not call the table it is "
                        "called from",
                        which=self._which,
                    )
                # An interrupt orphaned it: ours, with whatever it left half done.
                status = self._mutex.adopt()
                if status is Status.OWNER_DIED:
                    self._words[self._dirty] = 1
                    return
            waited_s = time.monotonic() - began
            if timeout_s is not None and waited_s >= timeout_s:
                raise self._timeout(waited_s)
            if self._forking and threading.get_ident() not in self._forking:
                time.sleep(FORK_PAUSE_S)
                continue
            left_s = SLICE_S if timeout_s is None else timeout_s - waited_s
            status = self._mutex.acquire(min(left_s, SLICE_S))
        if busy:  # whoever waited counts it, under the lock at last; nobody else pays for it
            self._words[self._waits] += 1
            self._words[self._waited_ns] += int((time.monotonic() - began) * 1e9)

    def _timeout(self, waited_s: float) -> LockTimeoutError:
        pid, tid = self._words[self._note_pid], self._words[self._note_tid]
        held_s = max(time.monotonic_ns() - self._words[self._note_since_ns], 0) / 1e9
        command = process.command(pid)
        company = "" if self._company is None else f"; {self._company()}"
        return LockTimeoutError(
            f"waited {waited_s:.3g} s for the table's {_LABELS[self._which]}; it seems held by "
            f"process {pid} ({command or 'command unknown'}), thread {tid}, for {held_s:.3g} s: "
            f"continue or end that process, or raise timeout_s{company}",
            pid=pid,
            tid=tid,
            command=command,
            held_s=held_s,
            waited_s=waited_s,
        )

    # -- fork ------------------------------------------------------------------------------------

    def _renew(self) -> None:
        self._try = self._mutex.quick_try
        self._tries = _TRIES if process.processors() > 1 else 0
        self._forking: set[int] = set()
        self._pid = process.current().pid
        self._numbers = _ThreadNumbers()

    def _before_fork(self) -> None:
        """Let no thread of this process be inside a section while it is copied."""
        self._forking.add(threading.get_ident())
        self._try = _later  # new sections queue up behind us, or a busy thread would never let go
        deadline = time.monotonic() + FORK_WAIT_S
        while self._mutex.acquire(SLICE_S) is Status.BUSY and time.monotonic() < deadline:
            pass

    def _after_fork(self) -> None:
        self._forking.discard(threading.get_ident())
        if not self._forking:
            self._try = self._mutex.quick_try
        # Forked from inside a section: the lock is the section's, and stays.
        if not _is_inside(self._key, sys._getframe()):
            self._mutex.settle()
