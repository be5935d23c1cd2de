"""Waiting: until when, and what to say meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shmtable.errors import RateLimitedError, WaitTimeoutError
from shmtable.protocols.core import LOCK_TIMEOUT_S, Core

_LOGGER = logging.getLogger("shmtable")
_TELL_EVERY_S = 5.0
_of_this_thread = threading.local()


class WaitStoppedError(WaitTimeoutError):
    """Nobody wants any more what this thread was waiting for; never leaves the package."""


@contextmanager
def stoppable(is_stopped: Callable[[], bool]) -> Iterator[None]:
    """Within it, this thread's waiting for tables ends soon after ``is_stopped()`` is true.

    "Soon" is half a second, the longest that anybody sleeps before looking again.
    """
    _of_this_thread.is_stopped = is_stopped
    try:
        yield
    finally:
        del _of_this_thread.is_stopped


class Wait:
    """The waiting of one call. Costs nothing until it begins.

    Args:
        core: the table.
        timeout_s: how long in all; 0 not at all, None for ever.
        counter: the header's word that what it takes is added to.
    """

    _began: float | None = None
    _told = 0.0

    def __init__(self, core: Core, timeout_s: float | None, counter: int) -> None:
        self._core = core
        self.timeout_s = timeout_s
        self._counter = counter

    def is_over(self) -> bool:
        """Whether the time is up; it begins with the first question."""
        now = time.monotonic()
        if self._began is None:
            self._began = self._told = now
        return self.timeout_s is not None and now - self._began >= self.timeout_s

    def sleep(self, seen: int) -> None:
        """Sleep until the bell rings, or for half a second, or until the time is up."""
        is_stopped: Callable[[], bool] | None = getattr(_of_this_thread, "is_stopped", None)
        if is_stopped is not None and is_stopped():
            raise WaitStoppedError("the waiting was called off")
        left = LOCK_TIMEOUT_S
        if self.timeout_s is not None and self._began is not None:
            left = max(self._began + self.timeout_s - time.monotonic(), 0.0)
        began_ns = time.monotonic_ns()
        self._core.guard.bell.wait(seen, left)
        self._core.waited.add(self._counter, time.monotonic_ns() - began_ns)

    def is_to_tell(self) -> bool:
        """Whether enough time has gone by since the last word."""
        return self._began is not None and time.monotonic() - self._told >= _TELL_EVERY_S

    def tell(self, call: str, reason: str) -> None:
        """Log what a held-back call waits for, every few seconds."""
        now = time.monotonic()
        if self.is_to_tell() and self._began is not None:
            self._told = now
            where, waited = self._core.where(), now - self._began
            _LOGGER.warning(
                "%s of table %s: blocked for %.1f s because %s", call, where, waited, reason
            )

    def rate_limited(self, call: str, reason: str) -> RateLimitedError:
        """The error for a call that the limiter has held back until its time was up."""
        waited = f" for {self.timeout_s:g} s" if self.timeout_s else ""
        remedy = "" if self.timeout_s else "; or give a timeout_s to wait for it"
        return RateLimitedError(
            f"the limiter holds {call} back{waited}: {reason}{remedy}; {self._core.company()}",
            timeout_s=self.timeout_s,
            reason=reason,
        )
