"""What the writers of steps have in common: their options, and how they are left."""

from __future__ import annotations

import atexit
import logging
import multiprocessing.util
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from shmtable.errors import ClosedError, ShmTableError, SpecError
from shmtable.held import HeldTable
from shmtable.protocols import Core
from shmtable.protocols.arguments import as_int64, at_least_one
from shmtable.protocols.endings import Adding, Endings
from shmtable.shm import process

if TYPE_CHECKING:
    from typing_extensions import Self

_LOGGER = logging.getLogger("shmtable")
_CHOICES = ("flush", "drop")


class StepWriter(ABC):
    """What the writers of steps have in common: their options, and how they are left.

    Args:
        table: where the sequences go.
        identity, chunk, overlap, priority, timeout_s, unfinished: see ``ArrayMemoryTable.writer``.

    Raises:
        SpecError: an option that cannot be.
        PriorityError: a priority that cannot be, or that nobody keeps.
    """

    _closed = True  # until it is made

    def __init__(
        self,
        table: HeldTable,
        *,
        identity: int | None = None,
        chunk: int | None = None,
        overlap: int = 0,
        priority: Any = None,
        timeout_s: float | None = 60.0,
        unfinished: str = "flush",
    ) -> None:
        self._table = table
        core = table._core
        self._schema = core.schema
        self._ahead = core.schema.look_ahead
        self._beyond = core.schema.max_look_ahead
        self._chunk, self._overlap = _cuts(core, chunk, overlap)
        if unfinished not in _CHOICES:
            raise SpecError(f"unfinished is {unfinished!r}; give one of {_CHOICES}")
        self._unfinished = unfinished
        self._endings = Endings(core.schema, table.adaptors)
        self._adding = Adding(lambda: table._core, identity, priority, timeout_s)

    def _open(self) -> None:
        """To be called last by what makes a writer."""
        self._closed = False
        process.after_fork(self._leave_to_parent)
        _watch(self)

    @abstractmethod
    def flush(self) -> list[int]:
        """Add what is open as truncated, and begin anew.

        What followed the last step is not known; where a column needs it, the last step gives it,
        and is itself left out.

        Returns:
            The identities of the sequences it became, those cut off before included.

        Raises:
            SequenceError: a tag is missing; it is still open.
            ShmTableError: as ``add_sequence``; it is still open.
        """

    @abstractmethod
    def drop(self) -> int:
        """Forget what is open, and begin anew; how many steps these were."""

    @abstractmethod
    def _unsaved(self) -> int:
        """Steps that are in no sequence."""

    def close(self) -> None:
        """End the writer; what is open is flushed or dropped, and a log line says so.

        Safe to call twice. Leaving the ``with`` block does it too, but an exception that comes out
        of the block has what is open dropped.

        Raises:
            ShmTableError: as ``flush``; what is open is dropped then.
        """
        if self._closed:
            return
        try:
            self._finish("the writer was closed")
        finally:
            self._shut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None and not self._closed:
            self._say(self._unsaved(), "dropped", f"{kind.__name__} left the block of the writer")
            self._shut()
        self.close()

    def __del__(self) -> None:
        self._leave("nobody has the writer any more")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a writer holds the open episode of one process; pass the table on, and make a writer "
            "there"
        )

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Have what is open dropped by all but the table's refusals: who knows how far it came.

        A signal's handler may raise any exception, at any moment.
        """
        try:
            yield
        except ShmTableError:
            raise
        except BaseException:
            self.drop()
            raise

    def _finish(self, why: str) -> None:
        """Flush or drop."""
        steps = self._unsaved()
        before = self._adding.added
        try:
            if steps and self._unfinished == "flush":
                self.flush()
        finally:
            kept = self._adding.added > before
            what = "added as truncated, without what came last" if kept else "dropped"
            self._say(steps, what, why)

    def _leave(self, why: str) -> None:
        """Finish without waiting for anybody, and without an error."""
        if self._closed:
            return
        self._adding.timeout_s = 0.0
        try:
            self._finish(why)
        except Exception as error:
            _LOGGER.warning("%s: %s", type(self).__name__, error)
        self._shut()

    def _say(self, steps: int, what: str, why: str) -> None:
        if steps:
            _LOGGER.warning(
                "%s: %d steps of unfinished episodes were %s, because %s",
                type(self).__name__, steps, what, why,
            )  # fmt: skip

    def _shut(self) -> None:
        self.drop()
        self._closed = True
        _OPEN.discard(self)

    def _leave_to_parent(self) -> None:
        """In a forked child: what is open is the parent's."""
        if not self._closed:
            self.drop()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError("the writer is closed; make another one with table.writer()")


def _cuts(core: Core, chunk: int | None, overlap: int) -> tuple[int, int]:
    overlap = as_int64("overlap", overlap)
    if chunk is None:
        if overlap:
            raise SpecError(f"overlap is {overlap} without a chunk; give chunk= too")
        return 0, 0
    chunk, maxlen = at_least_one("chunk", chunk), core.maxlen()
    if chunk > maxlen:
        raise SpecError(f"chunk is {chunk}, the table holds at most {maxlen} (maxlen); give less")
    if not 0 <= overlap < chunk:
        raise SpecError(f"overlap is {overlap}; give 0 to {chunk - 1}, less than the chunk")
    return chunk, overlap


# -- the end of the process ---------------------------------------------------------------------

_OPEN: weakref.WeakSet[StepWriter] = weakref.WeakSet()
_watching: process.ProcessId | None = None


def _watch(writer: StepWriter) -> None:
    """Have a writer finished at the latest when the process ends, before its table is let go."""
    global _watching
    _OPEN.add(writer)
    if _watching != process.current():
        _watching = process.current()
        atexit.register(_leave_all)
        # Children of multiprocessing leave without running atexit.
        multiprocessing.util.Finalize(None, _leave_all, exitpriority=10)


def _leave_all() -> None:
    for writer in list(_OPEN):
        writer._leave("the process ends")
