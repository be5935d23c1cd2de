"""Step by step: what an environment gives becomes sequences of a table."""

from __future__ import annotations

import atexit
import logging
import multiprocessing.util
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from shmtable.columns import Steps
from shmtable.errors import ClosedError, SequenceError, SpecError
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
        identity, chunk, overlap, tags, priority, timeout_s, unfinished: see
            ``ArrayMemoryTable.writer``.

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
        """Have what is open dropped by an interrupt: nobody knows how far it came."""
        try:
            yield
        except Exception:
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


class Writer(StepWriter):
    """Takes the steps of one environment; made by ``table.writer()``, for one thread.

    Steps are kept in this process's memory until they are whole sequences. A process that is
    killed loses the episode it is in, and nothing else.
    """

    def __init__(self, table: HeldTable, *, tags: Mapping[str, Any] | None, **options: Any) -> None:
        super().__init__(table, **options)
        self._tags = self._endings.tags(tags or {})
        if self._chunk:
            self._endings.complete(self._tags)  # not known yet when the first part is cut off
        self._steps = Steps(self._schema.stored, self._endings.flags, max(self._beyond, 1))
        # One step more than a part has, or those looked ahead: an end then is never an empty one.
        self._cut_at = self._chunk + max(self._beyond, 1) if self._chunk else 0
        self._shared = 0  # first steps that are in the sequence before, too
        self._added: list[int] = []
        self._open()

    def __len__(self) -> int:
        return self._steps.length

    def append(self, /, **values: Any) -> None:
        """Append one step: what was observed, what was done, what came of it.

        Args:
            **values: for each stored column one value, ``[*shape]``: ndarray, tensor, list or
                number. Columns named "terminated" and "truncated" may be left to ``end``.

        Raises:
            SequenceError: a step that does not fit; neither the table nor the episode has changed.
            ShmTableError: as ``add_sequence``, where a part of the episode is cut off; the step is
                not taken.
        """
        steps = self._steps
        if steps.length == steps.room:
            self._make_room()
        steps.put(values)
        if steps.length + 1 == self._cut_at:
            self._cut(steps.length + 1)
        steps.length += 1

    def end(
        self,
        /,
        *,
        terminated: Any = None,
        truncated: Any = None,
        priority: Any = None,
        **final: Any,
    ) -> list[int]:
        """End the episode: its steps are in the table when this returns.

        Args:
            terminated: whether it came to a true end.
            truncated: whether it was cut off, and would have gone on. One of the two is needed if
                the table keeps it: as columns or tags of these names, or as the tag of a
                ``TerminalAdaptor`` (1 where values go on).
            priority: of the (last) sequence, as for ``add_sequence``.
            **final: what was observed after the last step, for each column that is looked ahead
                in; and tags. The other columns may bring one value more, too.

        Returns:
            The identities of the sequences it became: one, or more if it was cut.

        Raises:
            SequenceError: what does not fit; the episode is still open.
            ShmTableError: as ``add_sequence``; the episode is still open.
        """
        self._refuse_closed()
        steps = self._steps
        if not steps.length:
            raise SequenceError("the episode has no step yet; append one before its end")
        extra, given = self._finals(final)
        tags = {**self._tags, **given}
        self._endings.complete(tags)
        last = {
            name: bool(steps.rows(name)[steps.length - 1].reshape(())[()])
            for name, given in steps.given.items()
            if given
        }
        ended = self._endings.told(terminated, truncated, last, tags)
        while self._chunk and steps.length > self._chunk:
            self._cut(steps.length + self._beyond)
        with self._whole():
            self._add(steps.length, extra, tags, *ended, priority)
            return self._begin()

    def flush(self) -> list[int]:
        self._refuse_closed()
        length = self._steps.length - self._beyond
        with self._whole():
            if length > self._shared:
                self._endings.complete(self._tags)
                self._add(length, self._ahead, self._tags, False, True)
            return self._begin()

    def drop(self) -> int:
        """Forget the open episode and begin anew; how many steps it had that are in no sequence."""
        steps = self._unsaved()
        self._begin()
        return steps

    def _unsaved(self) -> int:
        return self._steps.length - self._shared

    def _begin(self) -> list[int]:
        added, self._added = self._added, []
        self._steps.length = self._shared = 0
        return added

    def _finals(self, final: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
        """Store what follows the last step; how many rows of each column, and the tags."""
        names = self._steps.names()
        tags = self._endings.tags({name: final[name] for name in final if name not in names})
        extra = {}
        for name in names:
            ahead = self._ahead[name]
            if name in final:
                extra[name] = max(ahead, 1)
                self._steps.follow(name, final[name], extra[name])
            elif ahead:
                users = [f"'{c.name}'" for c in self._schema.virtual if c.target_name == name]
                raise SequenceError(
                    f"column '{name}': {', '.join(users)} needs what came after the last step; "
                    f"give it to end() as {name}=",
                    column=name,
                )
        return extra, tags

    def _add(
        self,
        length: int,
        extra: Mapping[str, int],
        tags: Mapping[str, Any],
        terminated: bool,
        truncated: bool,
        priority: Any = None,
    ) -> None:
        steps = self._steps
        rows = {name: steps.rows(name)[: length + extra.get(name, 0)] for name in steps.names()}
        sequence = self._endings.sequence(rows, tags, length, terminated, truncated)
        self._added.append(self._adding.add(sequence, priority))

    def _cut(self, stored: int) -> None:
        """Add the first ``chunk`` steps, of which the last ``overlap`` stay."""
        with self._whole():
            self._add(self._chunk, self._ahead, self._tags, False, True)
            self._steps.forget(self._chunk - self._overlap, stored)
            self._shared = self._overlap

    def _make_room(self) -> None:
        self._refuse_closed()
        most = self._cut_at or self._table._core.maxlen()
        if self._steps.length >= most:
            raise SequenceError(
                f"the open episode has {most} steps, as many as the table holds (maxlen); end it, "
                "or have long episodes cut: table.writer(chunk=...)"
            )
        with self._whole():
            self._steps.grow(most)

    def _shut(self) -> None:
        super()._shut()
        self._steps.room = 0  # the next step asks for room, and hears of it


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
