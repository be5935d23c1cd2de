"""Making things ahead, in a thread that ends with whoever takes them."""

from __future__ import annotations

import atexit
import logging
import multiprocessing.util
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from shmtable.errors import SpecError
from shmtable.protocols.wait import WaitStoppedError, stoppable
from shmtable.shm.guard import is_inside_any

T = TypeVar("T")
_LOGGER = logging.getLogger("shmtable")
LOOK_EVERY_S = 0.5  # how soon either side notices what it was not woken up for
END_S = 60.0  # to wait for a thread that is busy: as long as for a lock


class Prefetch(Generic[T]):
    """An iterator over things that a thread of its own makes ahead, in order.

    The thread ends with ``close``, with the last thing, with an error (which ``next`` raises after
    what was made before it), soon after nobody has the iterator any more, and as the process ends.
    It is started by the first ``next``. An interrupt, wherever it comes, may cost the thing that
    was being taken, and no more.

    Args:
        make: makes the next thing; called by the thread only. What it waits for in a table is
            called off by ``close``.
        ahead: so many at most are made and not taken yet, the one being made included; at least 1.
        count: how many in all; None for no end.
    """

    def __init__(self, make: Callable[[], T], ahead: int, count: int | None = None) -> None:
        self._work = _Work(make, ahead, count, weakref.ref(self))
        self._pid = os.getpid()
        self._is_started = False
        self._at_child_exit: multiprocessing.util.Finalize | None = None

    def __iter__(self) -> Prefetch[T]:
        return self

    def __next__(self) -> T:
        if os.getpid() != self._pid:
            raise SpecError(
                "this iterator's thread is in the process that was forked; make a new iterator here"
            )
        work = self._work
        if not self._is_started and not work.is_called_off:
            self._start()
        while not work.is_called_off:
            # In this order: what was put before the end is there after it.
            is_over = work.is_over
            try:
                (made,) = work.made.get(not is_over, LOOK_EVERY_S)
            except Empty:
                if is_over:
                    break
            except ValueError:
                continue  # woken up by the end
            else:
                if work.room.empty():
                    work.room.put(None)
                return made
        self.close()
        if work.error is not None:
            error, work.error = work.error, None
            raise error  # with the thread's own frames in its traceback
        raise StopIteration

    def close(self) -> None:
        """Drop what was made, and end the thread; safe to call twice.

        A thread that is still busy after a minute is left to end by itself, and that is logged.
        """
        if os.getpid() == self._pid:  # the thread was not forked
            self._work.end()
            atexit.unregister(self._work.end)
            if self._at_child_exit is not None:
                self._at_child_exit.cancel()

    def _start(self) -> None:
        # A daemon, since an iterator that somebody still holds must not keep the process from
        # ending; but ended in good order, before tables are let go. Children of multiprocessing
        # leave without running atexit.
        work = self._work
        atexit.register(work.end)
        self._at_child_exit = multiprocessing.util.Finalize(None, work.end, exitpriority=10)
        # Cut off by an interrupt, it is started once more: one of the two finds nothing to do.
        threading.Thread(target=work.run, name="shmtable-prefetch", daemon=True).start()
        self._is_started = True


class _Work(Generic[T]):
    """What the thread does. It does not keep the iterator, so as to see that nobody else does.

    The two sides share nothing but what one bytecode or a C function changes: an interrupt can cut
    off a ``with`` that takes a lock of Python's and leave the lock taken.

    Args:
        make, ahead, count: as for ``Prefetch``.
        taker: the iterator.

    Attributes:
        made: what was made, each in a tuple of one; an empty tuple when there comes no more.
        room: an entry wakes the thread up when something was taken.
        error: what ``make`` has raised.
        is_over: no more is made.
        is_called_off: no more is wanted.
    """

    def __init__(
        self,
        make: Callable[[], T],
        ahead: int,
        count: int | None,
        taker: weakref.ref[Prefetch[T]],
    ) -> None:
        self.made: SimpleQueue[tuple[T, ...]] = SimpleQueue()
        self.room: SimpleQueue[None] = SimpleQueue()
        self.error: BaseException | None = None
        self.is_over = False
        self.is_called_off = False
        self._tasks = [make]  # for the first thread that comes
        self._ahead = ahead
        self._count = count
        self._taker = taker
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Make one after the other until they are no longer wanted: the thread."""
        try:
            make = self._tasks.pop()
        except IndexError:
            return
        self._thread = threading.current_thread()
        try:
            with stoppable(self._is_unwanted):
                left = self._count
                while left != 0 and self._has_room():
                    self.made.put((make(),))
                    left = None if left is None else left - 1
        except WaitStoppedError:
            pass
        except BaseException as error:  # whatever it is belongs to whoever asks next
            self.error = error
        finally:
            self.is_over = True
            self.made.put(())
            if self._is_unwanted():
                self._drop()

    def end(self) -> None:
        """Call the thread off, and wait for it where that is safe."""
        self.is_called_off = True
        self.room.put(None)
        self._drop()
        thread = self._thread
        # The collector may come by here while a table's lock is held for which the thread waits,
        # or in the thread itself. It ends all the same.
        if thread in (None, threading.current_thread()) or is_inside_any():
            return
        thread.join(END_S)
        if thread.is_alive():
            _LOGGER.warning(
                "the thread that makes batches ahead is still making one after %g s; it ends when "
                "that is made: see that no adaptor waits without a limit",
                END_S,
            )

    def _drop(self) -> None:
        with suppress(Empty):
            while True:
                self.made.get_nowait()
        self.made.put(())  # for another thread that waits for one

    def _is_unwanted(self) -> bool:
        return self.is_called_off or self._taker() is None

    def _has_room(self) -> bool:
        """Wait until there is room for one more; False when no more are wanted."""
        while self.made.qsize() >= self._ahead and not self._is_unwanted():
            with suppress(Empty):
                self.room.get(timeout=LOOK_EVERY_S)
        return not self._is_unwanted()
