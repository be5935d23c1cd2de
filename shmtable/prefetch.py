"""Making things ahead, in a thread that ends with whoever takes them."""

from __future__ import annotations

import atexit
import multiprocessing.util
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from shmtable.errors import SpecError
from shmtable.protocols.wait import WaitStoppedError, stoppable
from shmtable.shm.guard import is_inside_any

T = TypeVar("T")


class Prefetch(Generic[T]):
    """An iterator over things that a thread of its own makes ahead, in order.

    The thread ends with ``close``, with the last thing, with an error (which ``next`` raises after
    what was made before it), and as the process ends. It is started by the first ``next``.

    Args:
        make: makes the next thing; called by the thread only. What it waits for in a table is
            called off by ``close``.
        ahead: so many at most are made and not taken yet, the one being made included; at least 1.
        count: how many in all; None for no end.
    """

    def __init__(self, make: Callable[[], T], ahead: int, count: int | None = None) -> None:
        self._make = make
        self._ahead = ahead
        self._count = count
        self._made: deque[T] = deque()
        self._error: BaseException | None = None
        self._is_done = False
        # Reentrant, as the collector may close another one from anywhere in this thread.
        self._changed = threading.Condition(threading.RLock())
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._at_child_exit: multiprocessing.util.Finalize | None = None

    def __iter__(self) -> Prefetch[T]:
        return self

    def __next__(self) -> T:
        if os.getpid() != self._pid:
            raise SpecError(
                "this iterator's thread is in the process that was forked; make a new iterator here"
            )
        if self._thread is None and not self._stop.is_set():
            self._start()
        with self._changed:
            while not self._made and not self._is_done:
                self._changed.wait()
            if self._made:
                self._changed.notify_all()
                return self._made.popleft()
            error, self._error = self._error, None
        self.close()
        if error is not None:
            raise error  # with the thread's own frames in its traceback
        raise StopIteration

    def close(self) -> None:
        """Drop what was made, and end the thread; safe to call twice."""
        if os.getpid() != self._pid:
            return  # the thread was not forked, and its lock may have been held
        self._stop.set()
        with self._changed:
            self._is_done = True
            self._made.clear()
            self._changed.notify_all()
        thread = self._thread
        # The collector may come by here while a table's lock is held for which the thread waits,
        # or in the thread itself. It ends all the same.
        if thread not in (None, threading.current_thread()) and not is_inside_any():
            thread.join()
        atexit.unregister(self.close)
        if self._at_child_exit is not None:
            self._at_child_exit.cancel()

    def _start(self) -> None:
        # A daemon, since an iterator that somebody still holds must not keep the process from
        # ending; but ended in good order, before tables are let go. Children of multiprocessing
        # leave without running atexit.
        atexit.register(self.close)
        self._at_child_exit = multiprocessing.util.Finalize(None, self.close, exitpriority=10)
        thread = threading.Thread(target=self._run, name="shmtable-prefetch", daemon=True)
        thread.start()
        self._thread = thread  # only now: one that could not be started cannot be waited for

    def _run(self) -> None:
        try:
            with stoppable(self._stop):
                left = self._count
                while left != 0 and self._has_room():
                    self._put(self._make())
                    left = None if left is None else left - 1
        except WaitStoppedError:
            pass
        except BaseException as error:  # whatever it is belongs to whoever asks next
            self._error = error
        finally:
            with self._changed:
                self._is_done = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Wait until there is room for one more; False when no more are wanted."""
        with self._changed:
            while len(self._made) >= self._ahead and not self._stop.is_set():
                self._changed.wait()
        return not self._stop.is_set()

    def _put(self, made: T) -> None:
        with self._changed:
            if not self._stop.is_set():
                self._made.append(made)
                self._changed.notify_all()
