"""Steps that become a sequence: rows in memory of this process, one more with every step."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from shmtable.columns.cast import lossless, numbers_within
from shmtable.columns.convert import as_rows, as_step
from shmtable.columns.spec import Column
from shmtable.errors import SequenceError

Array = npt.NDArray[Any]

_FIRST_ROOM = 64

# What one column takes without being looked at any further; see ``_entry``.
_Entry = tuple[
    str,
    Array,
    "np.dtype[Any] | None",
    tuple[int, ...],
    frozenset[type],
    frozenset[type],
    float,
    float,
    Column,
]


class Steps:
    """Rows of columns that grow step by step; the memory doubles and is used again.

    Args:
        columns: that every step brings.
        optional: names of columns that the steps of a run bring all or none.
        spare: rows kept free behind the steps, for what follows the last one.

    Attributes:
        length: steps there are; the rows behind them are nobody's.
        room: steps there is memory for, not counting the spare rows.
        given: the optional columns that the steps bring.
    """

    __slots__ = ("_arrays", "_columns", "_plan", "_spare", "given", "length", "room")

    def __init__(self, columns: Sequence[Column], optional: Collection[str], spare: int) -> None:
        self._columns = {column.name: column for column in columns}
        self._spare = spare
        self._arrays: dict[str, Array] = {}
        self._plan: list[_Entry] = []
        self.given: dict[str, bool] = dict.fromkeys(optional, False)
        self.length = 0
        self.room = 0

    def put(self, values: Mapping[str, Any]) -> None:
        """Store one step in the row behind the last; it counts once ``length`` is raised.

        Args:
            values: for each column one value [*shape]: ndarray, tensor, list, number.

        Raises:
            SequenceError: a step that does not fit, naming the column; ``length`` is as before.
        """
        if len(values) != len(self._plan):
            self._choose(values)
        row = self.length
        try:
            for name, rows, dtype, shape, exact, ranged, low, high, column in self._plan:
                value = values[name]
                kind = type(value)
                if kind is np.ndarray:
                    if value.dtype is dtype and value.shape == shape:
                        rows[row] = value
                        continue
                elif kind in exact or (kind in ranged and low <= value <= high):
                    rows[row] = value
                    continue
                rows[row] = as_step(column, value)
        except KeyError:
            if not self._choose(values):
                raise
            self.put(values)  # the first step of another kind

    def follow(self, name: str, value: Any, count: int) -> None:
        """Store what follows the last step, in the rows behind it.

        Args:
            name: of a column.
            value: [*shape], or [count, *shape] where ``count`` is more than 1.
            count: rows, at most the spare ones.

        Raises:
            SequenceError: values that do not fit, naming the column.
        """
        column = self._columns[name]
        rows = as_step(column, value)[None] if count == 1 else as_rows(column, value)
        if len(rows) != count:
            raise SequenceError(
                f"column '{name}': has {len(rows)} rows after the last step; give {count}, as "
                "many as are looked ahead",
                column=name,
                rows=len(rows),
            )
        self._arrays[name][self.length : self.length + count] = rows

    def rows(self, name: str) -> Array:
        """The memory of a column, [room + spare, *shape]; of which ``length`` rows are steps."""
        return self._arrays[name]

    def names(self) -> list[str]:
        """The columns that the steps bring."""
        return [entry[0] for entry in self._plan]

    def grow(self, most: int) -> None:
        """Make room for twice as many steps, or for ``most`` of them."""
        room = min(max(2 * self.room, _FIRST_ROOM), most)
        arrays = {}
        for name, column in self._columns.items():
            arrays[name] = np.empty((room + self._spare, *column.shape), column.dtype.numpy)
            if self.length:
                arrays[name][: self.length] = self._arrays[name][: self.length]
        self.room = 0  # until all belongs together again: an interrupt may come in between
        self._arrays = arrays
        self._plan = self._planned(self.given)
        self.room = room

    def forget(self, count: int, stored: int) -> None:
        """Take the first ``count`` steps out; the rows behind them move up, ``stored`` in all."""
        for rows in self._arrays.values():
            rows[: stored - count] = rows[count:stored]
        self.length -= count

    def _planned(self, given: Mapping[str, bool]) -> list[_Entry]:
        return [
            _entry(self._columns[name], rows)
            for name, rows in self._arrays.items()
            if given.get(name, True)
        ]

    def _choose(self, values: Mapping[str, Any]) -> bool:
        """Take the optional columns that a first step brings; refuse all else that does not fit.

        Returns:
            Whether there were other ones before.
        """
        given = {name: name in values for name in self.given}
        changes = self.length == 0 and given != self.given
        if changes:
            self._plan = self._planned(given)
            self.given = given
        names = self.names()
        for name in names:
            if name not in values:
                _refuse_missing(name, values)
        for name in values:
            if name in self.given and name not in names:
                raise SequenceError(
                    f"column '{name}': the steps before this one came without it; give it with "
                    "every step or with none",
                    column=name,
                )
            if name not in names:
                raise SequenceError(
                    f"column {name!r}: is no column of a step; a step has {', '.join(names)}",
                    column=name,
                )
        return changes


def _refuse_missing(name: str, values: Mapping[str, Any]) -> NoReturn:
    raise SequenceError(
        f"column '{name}': missing from the step, which has "
        f"{', '.join(map(str, values)) or 'no columns'}; give every stored column with every step",
        column=name,
    )


def _entry(column: Column, rows: Array) -> _Entry:
    """What tells at a glance that a value may be stored as it is.

    An ndarray of this very dtype and shape may. For a single element also an object of the types
    that ``exact`` has, and one of those that ``ranged`` has and that lies between low and high.
    """
    dtype = column.dtype.numpy if column.dtype.exact_numpy else None
    exact: frozenset[type] = frozenset()
    ranged: frozenset[type] = frozenset()
    low = high = 0.0
    if dtype is not None and math.prod(column.shape) == 1:
        exact = lossless(dtype)
        ranged, low, high = numbers_within(dtype)
    return column.name, rows, dtype, column.shape, exact, ranged, low, high, column
