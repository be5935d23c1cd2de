"""Which process this is, whether another one is gone, and what happens around a fork."""

from __future__ import annotations

import os
import select
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from shmtable.shm.opened import Opened

Hook = Callable[[], None]


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from later ones that get the same number.

    Attributes:
        pid: process id in its own pid namespace.
        start: start time in clock ticks since boot, 0 where the system does not tell.
    """

    pid: int
    start: int


def start_time(pid: int) -> int:
    """Start time of a process in clock ticks since boot (proc(5), stat field 22); 0 if unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
        # The command, field 2, is in parentheses and may itself contain any byte.
        return int(text[text.rindex(b")") + 2 :].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


_LARGEST_PID = 2**31 - 1  # pid_t is an int everywhere
_current: ProcessId | None = None


def current() -> ProcessId:
    """This process; cheap, and right in forked children too."""
    global _current
    if _current is None:
        pid = os.getpid()
        _current = ProcessId(pid, start_time(pid))
    return _current


def is_gone(pid: int, start: int) -> bool:
    """True only when the kernel proves that every thread of that process is gone.

    A process that cannot be decided about counts as alive: taking a slow writer for a dead one
    would hand its rows to somebody else while it still copies into them. The caller makes sure
    that the process belongs to this boot and this pid namespace.

    Args:
        pid: its process id.
        start: its start time, 0 if unknown.
    """
    if pid <= 0:
        return False
    if pid > _LARGEST_PID:
        return True
    if pid == os.getpid():
        return 0 not in (start, current().start) and start != current().start
    open_pidfd = getattr(os, "pidfd_open", None)
    try:
        if open_pidfd is None:
            os.kill(pid, 0)  # ESRCH: not even a zombie; a zombie may still have running threads
        else:
            with Opened(open_pidfd, pid) as opened:
                # Readable once the whole thread group has exited, be it reaped or not.
                poll = select.poll()
                poll.register(opened.fd, select.POLLIN)
                if poll.poll(0):
                    return True
    except ProcessLookupError:
        return True
    except OSError:
        pass  # a refused or unknown call proves nothing; the start time still may
    now = start_time(pid)
    return 0 not in (start, now) and start != now


def processors() -> int:
    """On how many processors this process may run, at least 1."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


class Watch:
    """Watches for the end of another process, at the cost of one system call a look.

    Args:
        other: in this pid namespace; it may have ended already.
    """

    def __init__(self, other: ProcessId) -> None:
        self._other = other
        self._opened: Opened | None = None
        open_pidfd = getattr(os, "pidfd_open", None)
        with suppress(OSError):  # refused or unknown: asked by its number then
            if open_pidfd is not None:
                self._opened = Opened(open_pidfd, other.pid)
                # With this object, and not before: another thread may be looking.
                weakref.finalize(self, self._opened.close)
        # Afterwards: the number may have been another process's by then.
        self._ended = is_gone(other.pid, other.start)

    def is_gone(self) -> bool:
        """Whether the kernel proves that the process has ended; see the function ``is_gone``."""
        if not self._ended:
            if self._opened is not None:
                poll = select.poll()
                poll.register(self._opened.fd, select.POLLIN)
                self._ended = bool(poll.poll(0))
            else:
                self._ended = is_gone(self._other.pid, self._other.start)
        return self._ended


def command(pid: int) -> str:
    """The command line of a process, for messages; empty if unknown."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(512).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""
    words = "".join(letter if letter.isprintable() else "?" for letter in words)
    return words if len(words) <= 120 else words[:117] + "..."


def locker(path: str) -> str:
    """Who holds the ``flock`` on a file, as far as this system tells, for messages."""
    try:
        status = os.stat(path)
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        with open("/proc/locks", encoding="ascii") as file:
            holders = [
                row[4] for row in map(str.split, file) if row[1:2] + row[5:6] == ["FLOCK", device]
            ]
    except (OSError, ValueError):
        holders = []
    if not holders or int(holders[0]) <= 0:  # 0: of another pid namespace
        return "another process"
    return f"process {holders[0]} ({command(int(holders[0])) or 'command unknown'})"


@cache
def boot_id() -> int:
    """A number that changes with every boot of the machine; 0 where unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return int(file.read().strip().replace("-", ""), 16) >> 65  # 63 bits: fits an int64
    except (OSError, ValueError):
        return 0


def pid_namespace() -> int:
    """The pid namespace this process counts in; 0 where there are none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


class _ForkHooks:
    """Callbacks around fork, held weakly, run in the order they were registered."""

    def __init__(self) -> None:
        self._pairs: list[tuple[weakref.ref[Any], weakref.ref[Any]]] = []
        self._children: list[weakref.ref[Any]] = []
        # By forking thread: what is to be undone. Held strongly, or a collection between before
        # and after would leave the first half for ever.
        self._begun: dict[int, list[Hook]] = {}
        self._renewed_in: int | None = None  # the forked child in which all has been called

    def add_pair(self, before: Hook, after: Hook) -> None:
        alive = [pair for pair in self._pairs if pair[0]() is not None]
        self._pairs = [*alive, (_weakly(before), _weakly(after))]

    def add_child(self, callback: Hook) -> None:
        alive = [hook for hook in self._children if hook() is not None]
        self._children = [*alive, _weakly(callback)]

    def before(self) -> None:
        begun = self._begun[threading.get_ident()] = []
        # In reverse, as elsewhere: what was set up last is locked first.
        for before, after in reversed(self._pairs):
            act, undo = before(), after()
            if act is not None and undo is not None:
                begun.insert(0, undo)
                _attempt(act)

    def in_parent(self) -> None:
        begun = self._begun.get(threading.get_ident(), [])
        while begun:
            _attempt(begun[0])
            del begun[0]  # only when it is done
        self._begun.pop(threading.get_ident(), None)

    def in_child(self) -> None:
        if self._renewed_in == os.getpid():
            return
        self._begun.clear()
        for hook in self._children:
            callback = hook()
            if callback is not None:
                _attempt(callback)
        self._renewed_in = os.getpid()


def _weakly(callback: Hook) -> weakref.ref[Any]:
    kind: Any = weakref.WeakMethod if hasattr(callback, "__self__") else weakref.ref
    reference: weakref.ref[Any] = kind(callback)
    return reference


def _attempt(callback: Hook) -> None:
    try:
        callback()
    except Exception:  # one table's trouble must not keep the others from being renewed
        sys.excepthook(*sys.exc_info())


_hooks = _ForkHooks()


def after_fork(callback: Hook) -> None:
    """Run a callback in every forked child; held weakly, in order of registration.

    A function made on the spot (a lambda) is gone at once: pass a bound method or a module's
    function.
    """
    _hooks.add_child(callback)


def around_fork(before: Hook, after_in_parent: Hook) -> None:
    """Run callbacks in the forking process, before it forks and when it has.

    Both are held weakly, but the second is sure to follow the first.
    """
    _hooks.add_pair(before, after_in_parent)


def _renew_current() -> None:
    global _current
    _current = None


def _use_one_thread() -> None:
    # OpenMP's threads do not survive a fork, but its bookkeeping does: the child's first
    # parallel operation would wait for them for ever.
    torch.set_num_threads(1)


after_fork(_renew_current)
after_fork(_use_one_thread)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hooks.before)
    # An interrupt that arrives meanwhile cuts off what runs after the fork, and Python only prints
    # it: what the first has not done, the second does.
    for _ in range(2):
        os.register_at_fork(after_in_parent=_hooks.in_parent, after_in_child=_hooks.in_child)
