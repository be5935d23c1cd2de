"""Step by step, for environments that step together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from shmtable.columns import Steps, as_step
from shmtable.errors import SequenceError, SpecError
from shmtable.held import HeldTable
from shmtable.protocols.arguments import at_least_one
from shmtable.step_writer import StepWriter
from shmtable.types import BoolArray

#: How environments begin anew, and whether a step goes by with it; see ``append``.
_MODES = {"next_step": 1, "same_step": 0, "disabled": 0}
_ARGUMENTS = ("following", "infos")
_FINAL = "final_obs"


class VectorWriter(StepWriter):
    """Takes the steps of N environments at once; made by ``table.vector_writer()``.

    Every episode of each becomes a sequence of its own. As :class:`Writer` otherwise.
    """

    # Steps lie in rows of N values, one row for each call. An episode of environment i is column i
    # of the rows from starts[i] on. What is written behind the last row, in the spare one, is
    # what followed an episode's last step; the next call overwrites it.

    def __init__(
        self,
        table: HeldTable,
        count: int,
        *,
        autoreset: Any,
        tags: Mapping[str, Sequence[Any]] | None,
        **options: Any,
    ) -> None:
        super().__init__(table, **options)
        self._count = at_least_one("count", count)
        self._mode = _as_mode(autoreset)
        flags = self._endings.flags
        stored = [column for column in self._schema.stored if column.name not in flags]
        for column in stored:
            if column.name in _ARGUMENTS or self._ahead[column.name] > 1:
                raise SpecError(
                    f"column '{column.name}': a vector writer has one value after the last step, "
                    f"and arguments named {', '.join(_ARGUMENTS)}; use table.writer()",
                    column=column.name,
                )
        self._columns = {column.name: column for column in stored if self._ahead[column.name]}
        self._tags = self._split(tags or {})
        self._endings.complete(tags or {})
        self._steps = Steps(
            [replace(column, shape=(self._count, *column.shape)) for column in stored], (), 1
        )
        self._starts = np.zeros(self._count, np.int64)
        self._shared = np.zeros(self._count, np.int64)  # steps in the sequence before, too
        # After so many steps there is something to be done: about memory, about a cut. Or not, if
        # episodes have ended meanwhile.
        self._stop_at = self._due = 0
        self._open()

    def append(
        self,
        /,
        *,
        terminated: Any,
        truncated: Any,
        following: Any = None,
        infos: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> None:
        """Append one step of every environment, and add the episodes that it ended.

        With ``autoreset="next_step"``, the step of an environment after its episode's last one
        only resets it, and is passed over.

        Args:
            terminated, truncated: bool [N], as the environments' ``step`` returned them.
            following: what it returned as observations: a mapping of column to ``[N, *shape]``,
                or, where only one column is looked ahead in, its values. Of use at the end of an
                episode: with "next_step" and "disabled" this is the real last observation.
            infos: what it returned as infos. With "same_step" the real last observation is in
                ``infos["final_obs"]``, and ``following`` is of no use.
            **values: for each stored column ``[N, *shape]``: what was observed *before* the step,
                what was done, what came of it. Not for "terminated" and "truncated".

        Raises:
            SequenceError: a step that does not fit; nothing has changed.
            ShmTableError: as ``add_sequence``. The step is not taken, but episodes that it ended
                may have been added; called again with the same values, it goes on with the others.
        """
        steps = self._steps
        if steps.length == self._stop_at:
            self._make_room()
        over, cut = self._marks("terminated", terminated), self._marks("truncated", truncated)
        steps.put(values)
        marked = over | cut
        ended: list[int] = []
        if marked.any():  # of those whose episode has begun
            ended = np.flatnonzero(marked & (self._starts <= steps.length)).tolist()
        if ended and self._columns:
            self._follow(ended, following, infos)
        if self._chunk and steps.length >= self._due:
            self._cut_due()
        if ended:
            self._end(ended, over, cut)
        steps.length += 1

    def flush(self) -> list[int]:
        self._refuse_closed()
        added = []
        for place in range(self._count):
            start = int(self._starts[place])
            length = self._steps.length - start - self._beyond
            if length > self._shared[place]:
                added.append(self._add(place, length, False, True))
                self._starts[place] = self._steps.length  # not again, should the next one fail
                self._shared[place] = 0
        self.drop()
        return added

    def drop(self) -> int:
        """Forget what is open and begin anew; how many steps it was that are in no sequence."""
        steps = self._unsaved()
        # An environment that has yet to be reset will be.
        self._starts = np.maximum(self._starts - self._steps.length, 0)
        self._shared[:] = 0
        self._stop_at = self._due = self._steps.length = 0
        return steps

    def _unsaved(self) -> int:
        return int(np.maximum(self._steps.length - self._starts - self._shared, 0).sum())

    def _add(self, place: int, length: int, terminated: bool, truncated: bool) -> int:
        """Add the first ``length`` steps of an environment's open episode."""
        steps, start = self._steps, int(self._starts[place])
        rows = {
            name: steps.rows(name)[start : start + length + self._ahead[name], place]
            for name in steps.names()
        }
        tags = self._tags[place]
        return self._adding.add(self._endings.sequence(rows, tags, length, terminated, truncated))

    def _cut_due(self) -> None:
        """Cut the episodes that have one step more than a chunk, with the row just stored."""
        lengths = self._steps.length + 1 - self._starts
        with self._whole():
            for place in np.flatnonzero(lengths > self._chunk).tolist():
                self._add(place, self._chunk, False, True)
                self._starts[place] += self._chunk - self._overlap
                self._shared[place] = self._overlap
        self._due = int(self._starts.min()) + self._chunk

    def _end(self, ended: list[int], over: BoolArray, cut: BoolArray) -> None:
        """Add the episodes that end with the row just stored."""
        behind = self._steps.length + 1
        with self._whole():
            for place in ended:
                length = behind - int(self._starts[place])
                self._add(place, length, bool(over[place]), bool(cut[place]))
                self._starts[place] = behind + _MODES[self._mode]
                self._shared[place] = 0

    def _make_room(self) -> None:
        self._refuse_closed()
        steps, maxlen = self._steps, self._table._core.maxlen()
        first = min(int(self._starts.min()), steps.length)
        if not self._chunk and steps.length - first >= maxlen:
            raise SequenceError(
                f"an open episode has {maxlen} steps, as many as the table holds (maxlen); have "
                "long episodes cut: table.vector_writer(chunk=...)"
            )
        if steps.length == steps.room:
            with self._whole():
                if 0 < steps.room <= 2 * first:  # most of it belongs to episodes that have ended
                    steps.forget(first, steps.length)
                    self._starts -= first
                    self._due -= first
                else:
                    steps.grow(2 * steps.room + 64)
        # Where the oldest episode would become too long, or what looks like it since then.
        end = int(self._starts.min()) + maxlen
        self._stop_at = steps.room if self._chunk else min(steps.room, end)

    def _follow(self, ended: list[int], following: Any, infos: Any) -> None:
        """Store what followed the last steps of episodes, in the spare row."""
        same = self._mode == "same_step"
        infos = infos if isinstance(infos, Mapping) else {}
        found, there = infos.get(_FINAL), infos.get(f"_{_FINAL}")
        if there is not None and not all(there[place] for place in ended):
            found = None
        if same != (found is not None):
            raise SequenceError(
                f"autoreset is {self._mode!r} and {'no ' if same else ''}{_FINAL} is in infos; "
                "give the writer the environments' own mode, and append their infos"
            )
        source = found if same else following
        where = f"infos['{_FINAL}']" if same else "following"
        rows = [
            (name, place, as_step(column, self._one(source, where, name, place)))
            for name, column in self._columns.items()
            for place in ended
        ]
        for name, place, row in rows:
            self._steps.rows(name)[self._steps.length + 1, place] = row

    def _one(self, source: Any, where: str, name: str, place: int) -> Any:
        """One environment's value of one column, out of what came with a step."""
        named = isinstance(source, Mapping)
        values = source.get(name) if named else source
        fits = hasattr(values, "__len__") and len(values) == self._count
        one = values[place] if fits else None
        if isinstance(one, Mapping):
            one = one.get(name)
        elif not named and len(self._columns) > 1:
            one = None  # whose it is, nobody can tell
        if one is not None:
            return one
        raise SequenceError(
            f"column '{name}': {where} has no value of environment {place}, whose episode has "
            f"ended; give a mapping of {', '.join(self._columns)} to {self._count} values each",
            column=name,
        )

    def _marks(self, name: str, value: Any) -> BoolArray:
        marks = value.numpy(force=True) if isinstance(value, Tensor) else np.asarray(value)
        if marks.dtype != np.bool_ or marks.shape != (self._count,):
            raise SequenceError(
                f"{name} has shape {marks.shape} and dtype {marks.dtype}; give {self._count} bools"
            )
        return marks

    def _split(self, tags: Mapping[str, Any]) -> list[dict[str, npt.NDArray[Any]]]:
        """Tags for each environment, of tags for all."""
        for name, values in tags.items():
            if len(values) != self._count:
                raise SequenceError(
                    f"column '{name}': {len(values)} tags; give {self._count}, one for each "
                    "environment",
                    column=name,
                )
        return [
            self._endings.tags({name: values[place] for name, values in tags.items()})
            for place in range(self._count)
        ]


def _as_mode(autoreset: Any) -> str:
    # Gymnasium's own AutoresetMode has these names in capitals.
    mode = str(getattr(autoreset, "name", autoreset)).lower()
    if mode not in _MODES:
        raise SpecError(
            f"autoreset is {autoreset!r}; give envs.metadata['autoreset_mode'], or one of "
            f"{', '.join(map(repr, _MODES))}"
        )
    return mode
