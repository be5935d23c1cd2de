"""Step by step: what an environment gives becomes sequences of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shmtable.columns import Steps
from shmtable.errors import SequenceError
from shmtable.held import HeldTable
from shmtable.step_writer import StepWriter


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
