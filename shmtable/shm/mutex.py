"""What the guard asks of a lock between processes."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import Any, Protocol

SLICE_S = 0.1  # how long one blocking call may keep Ctrl-C waiting


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


def poll(ask: Callable[[], Status], timeout_s: float) -> Status:
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
