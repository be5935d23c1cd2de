"""From steps to a sequence: its name, its priority, and in what way it ended.

An episode **terminates** where nothing comes after, and its last value counts for nothing; or it
is **truncated**, by a time limit or because it is cut into several sequences, and the value of its
real last observation counts. Columns that keep this are known by their names, and filled here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.adaptors import Adaptor, TerminalAdaptor
from shmtable.columns import Column, Schema, as_tag
from shmtable.errors import SequenceError, ShmTableError
from shmtable.protocols.arguments import as_int64
from shmtable.protocols.core import Core
from shmtable.protocols.priorities import as_priority
from shmtable.protocols.write import add, add_generated

Array = npt.NDArray[Any]

_FLAGS = ("terminated", "truncated")
# What ready-made tables call the tag that stands in for the mask at a sequence's end.
_READY_MADE = ("terminal", "masks")


class Endings:
    """Makes sequences out of finished runs of steps, and adds them to a table.

    Args:
        schema: the table's columns.
        adaptors: the table's: the tag of a ``TerminalAdaptor`` is one that tells how it ended.

    Attributes:
        flags: stored columns of one element that tell it, filled here unless the steps bring them.
        fillable: tags that tell it, likewise.
        wanted: the other tags.
    """

    def __init__(self, schema: Schema, adaptors: Iterable[Adaptor]) -> None:
        self._schema = schema
        self.flags = {column.name: column for column in schema.stored if _is_flag(column)}
        goes_on = {a.value_key for a in adaptors if isinstance(a, TerminalAdaptor)}
        tag, mask = _READY_MADE
        if any(column.name == mask for column in schema.virtual):
            goes_on.add(tag)
        self.fillable = {
            column.name: column.name if _is_flag(column) else "goes_on"
            for column in schema.tags
            if _is_flag(column) or (column.name in goes_on and _is_single(column))
        }
        self.wanted = [column.name for column in schema.tags if column.name not in self.fillable]

    def tags(self, given: Mapping[str, Any]) -> dict[str, Array]:
        """Check and convert tags that a caller gave.

        Raises:
            SequenceError: a value that does not fit, or a name that no tag has.
        """
        columns = {column.name: column for column in self._schema.tags}
        converted = {}
        for name, value in given.items():
            if name not in columns:
                raise SequenceError(
                    f"column {name!r}: the table has no such tag; it has "
                    f"{', '.join(columns) or 'none'}",
                    column=name,
                )
            converted[name] = as_tag(columns[name], value)
        return converted

    def complete(self, tags: Mapping[str, Any]) -> None:
        """Refuse tags that lack one which nobody fills in.

        Raises:
            SequenceError: naming it.
        """
        for name in self.wanted:
            if name not in tags:
                raise SequenceError(
                    f"column '{name}': missing, and every sequence has this tag; give it to end(), "
                    "or to the writer as tags={...} for all its sequences",
                    column=name,
                )

    def told(
        self, terminated: Any, truncated: Any, last: Mapping[str, bool], tags: Mapping[str, Any]
    ) -> tuple[bool, bool]:
        """How an episode ended: terminated, truncated.

        Args:
            terminated, truncated: what the caller says, None for nothing.
            last: what the columns of these names say at the last step, if the steps bring them.
            tags: given by the caller, who then knows what they say.

        Raises:
            SequenceError: no answers, contradictory ones, or none where the table keeps them.
        """
        said: dict[str, bool | None] = {}
        for name, value in zip(_FLAGS, (terminated, truncated), strict=True):
            said[name] = known = last.get(name)
            if value is None:
                continue
            said[name] = given = _yes_or_no(name, value)
            if known is not None and known != given:
                raise SequenceError(
                    f"{name} is {given}, but the last step has {known} in this column; give the "
                    "same in both places, or leave it out here"
                )
        over, cut = (said[name] for name in _FLAGS)
        if over is None and cut is None:
            kept = [n for n in (*self.flags, *self.fillable) if n not in last and n not in tags]
            if kept:
                raise SequenceError(
                    f"the table keeps how sequences end ('{kept[0]}'), and this one does not say; "
                    "give end() terminated=True or truncated=True"
                )
            return False, True
        return not cut if over is None else over, not over if cut is None else cut

    def sequence(
        self,
        rows: dict[str, Array],
        tags: Mapping[str, Any],
        length: int,
        terminated: bool,
        truncated: bool,
    ) -> dict[str, Any]:
        """What the table takes: ``rows`` and ``tags``, and what they do not say of the end."""
        sequence: dict[str, Any] = dict(rows)
        said = {"terminated": terminated, "truncated": truncated, "goes_on": not terminated}
        for name, column in self.flags.items():
            if name not in rows:
                ahead = self._schema.look_ahead[name]
                flags = np.zeros((length + ahead, *column.shape), bool)
                flags[length - 1] = said[name]
                sequence[name] = flags
        for column in self._schema.tags:
            if column.name in self.fillable:
                sequence[column.name] = np.full(column.shape, said[self.fillable[column.name]])
        sequence.update(tags)
        return sequence


class Adding:
    """Adds sequences one after the other, naming them.

    Args:
        core: the table; called each time, so that one that is closed says so.
        identity: of the first sequence; the next ones count on from it. None makes them up.
        priority: of each sequence: a number, or a function of the sequence that gives what
            ``add_sequence`` takes; None for the table's default.
        timeout_s: how long each may wait.

    Attributes:
        added: sequences that were.

    Raises:
        SpecError: an identity that cannot be.
        PriorityError: a priority that cannot be, or that nobody keeps.
    """

    def __init__(
        self,
        core: Callable[[], Core],
        identity: int | None,
        priority: Any,
        timeout_s: float | None,
    ) -> None:
        self.timeout_s = timeout_s
        self.added = 0
        self._core = core
        self._identity = None if identity is None else as_int64("identity", identity)
        if priority is not None:
            as_priority(core(), 0.0 if callable(priority) else priority, -1)
        self._priority = priority

    def add(self, sequence: dict[str, Any], priority: Any = None) -> int:
        """Add one sequence, whole or not at all.

        Args:
            sequence: as for ``add_sequence``.
            priority: of this one, if it has its own.

        Returns:
            Its identity.
        """
        core = self._core()
        if priority is None:
            priority = self._priority
        if callable(priority):
            priority = priority(sequence)
        if self._identity is None:
            identity = add_generated(core, sequence, self.timeout_s, priority)
        else:
            identity = as_int64("identity", self._identity)
            # Before: after an interrupt it may be in the table, and the next one is another.
            self._identity = identity + 1
            try:
                add(core, ((identity, sequence),), self.timeout_s, priority)
            except ShmTableError:
                self._identity = identity
                raise
        self.added += 1
        return identity


def _is_single(column: Column) -> bool:
    return math.prod(column.shape) == 1 and not column.dtype.torch.is_complex


def _is_flag(column: Column) -> bool:
    return column.name in _FLAGS and _is_single(column)


def _yes_or_no(name: str, value: Any) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if number not in (0.0, 1.0) or isinstance(value, str):
        raise SequenceError(f"{name} is {value!r:.60}; give True or False")
    return bool(number)
