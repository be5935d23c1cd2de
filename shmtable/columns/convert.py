"""Turns what callers pass (arrays, tensors, lists) into rows ready to be copied in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns.cast import cast, to_array
from shmtable.columns.schema import Schema
from shmtable.columns.spec import Column
from shmtable.errors import SequenceError

Array = npt.NDArray[Any]


class Prepared:
    """A sequence that fits the table, ready to be written.

    Attributes:
        length: transitions.
        span: rows it takes: the most that any stored column brought.
        rows: for each stored column, in the schema's order, [n, *shape] in its storage dtype;
            may be the caller's own arrays. Tensors in the column's own dtype where they are on
            the storage's device already.
        tags: for each tag column, [*shape] in its storage dtype.
        extra: bit i is set when stored column i, which nothing looks ahead in, brought one row
            more than the length.
    """

    __slots__ = ("extra", "length", "rows", "span", "tags")

    def __init__(
        self, length: int, span: int, rows: Sequence[Any], tags: Sequence[Array], extra: int
    ) -> None:
        self.length = length
        self.span = span
        self.rows = rows
        self.tags = tags
        self.extra = extra


class Converter:
    """Checks sequences against a schema and converts them; changes nothing, copies if it must.

    Args:
        schema: the table's columns.
        maxlen: most transitions a sequence may have; may be raised later.
        device: where the rows will lie: tensors there stay as they are. None: they are wanted
            as arrays.
    """

    def __init__(self, schema: Schema, maxlen: int, device: torch.device | None = None) -> None:
        self.maxlen = maxlen
        self._device = device
        self._schema = schema
        names = [column.name for column in schema.stored]
        self._key_index = names.index(schema.length_key)
        self._key_ahead = schema.look_ahead[schema.length_key]
        self._ahead = [schema.look_ahead[name] for name in names]
        self._stored = [_plan(column) for column in schema.stored]
        self._tags = [_plan(column) for column in schema.tags]
        self._key_count = len(self._stored) + len(self._tags)

    def prepare(self, sequence: Mapping[str, Any], maxlen: int | None = None) -> Prepared:
        """Check one sequence and convert it.

        Args:
            sequence: for each stored column [n, *shape] as ndarray, tensor (of any device) or
                list, for each tag column one value, or several of which the first counts.
                n is the length (the length key's rows less those it looks ahead), plus the rows
                that virtual columns look ahead; columns nothing looks ahead in may bring one
                more than the length.
            maxlen: most transitions allowed, the converter's own if None.

        Returns:
            Rows and tags; arrays that are right already are the caller's own, not copies.

        Raises:
            SequenceError: anything that does not fit, naming the column.
        """
        rows = []
        try:
            for name, dtype, ndim, shape, column in self._stored:
                value = sequence[name]
                if not (
                    type(value) is np.ndarray
                    and value.dtype is dtype
                    and value.ndim == ndim
                    and value.shape[1:] == shape
                ):
                    value = self._converted(column, value)
                rows.append(value)
            tags = [as_tag(column, sequence[column.name]) for *_, column in self._tags]
        except (KeyError, TypeError, IndexError):
            self._check_names(sequence)
            raise
        if len(sequence) != self._key_count:
            self._check_names(sequence)
        limit = self.maxlen if maxlen is None else maxlen
        return self._measured(rows, tags, limit)

    def _measured(self, rows: list[Any], tags: list[Array], limit: int) -> Prepared:
        """Check that the columns' rows make up one sequence."""
        length = len(rows[self._key_index]) - self._key_ahead
        if not 0 < length <= limit:
            self._refuse_length(length, limit)
        span = extra = 0
        for index, ahead in enumerate(self._ahead):
            count = len(rows[index])
            if count != length + ahead:
                if ahead or count != length + 1:
                    self._refuse_count(index, count, length)
                extra |= 1 << index
            if count > span:
                span = count
        return Prepared(length, span, rows, tags, extra)

    def _converted(self, column: Column, value: Any) -> Any:
        if (
            self._device is not None
            and isinstance(value, Tensor)
            and value.device == self._device
            and value.dtype == column.dtype.torch
            and value.ndim == len(column.shape) + 1
            and value.shape[1:] == column.shape
        ):
            return value.detach().resolve_conj().resolve_neg()
        return as_rows(column, value)

    def _check_names(self, sequence: Any) -> None:
        """Refuse a sequence that lacks a column, or has one the table does not store."""
        if not isinstance(sequence, Mapping):
            raise SequenceError(
                f"a sequence is a {type(sequence).__name__}; give a mapping of column name to rows"
            )
        known = [column.name for *_, column in (*self._stored, *self._tags)]
        for name in known:
            if name not in sequence:
                raise SequenceError(
                    f"column '{name}': missing from the sequence, which has "
                    f"{', '.join(map(str, sequence)) or 'no columns'}; give every stored column "
                    "and tag",
                    column=name,
                )
        for column in self._schema.virtual:
            if column.name in sequence:
                raise SequenceError(
                    f"column '{column.name}': given in the sequence, but it is computed from "
                    f"'{column.target_name}'; leave it out",
                    column=column.name,
                    target_name=column.target_name,
                )
        for name in sequence:
            if name not in known:
                raise SequenceError(
                    f"column {name!r}: the table has no such column; it stores {', '.join(known)}",
                    column=name,
                )

    def _refuse_length(self, length: int, limit: int) -> NoReturn:
        key, ahead = self._schema.length_key, self._key_ahead
        count = length + ahead
        if length > limit:
            raise SequenceError(
                f"sequence has {length} transitions, the table holds at most {limit} (maxlen); "
                "split it or resize the table",
                length=length,
                maxlen=limit,
            )
        beyond = f", {ahead} of them beyond the last transition" if ahead else ""
        raise SequenceError(
            f"column '{key}': has {count} rows{beyond}, so the sequence has no transition; "
            f"give at least {ahead + 1} rows",
            column=key,
            rows=count,
        )

    def _refuse_count(self, index: int, count: int, length: int) -> NoReturn:
        name, ahead = self._stored[index][0], self._ahead[index]
        key = self._schema.length_key
        if ahead:
            users = [
                f"'{column.name}'"
                for column in self._schema.virtual
                if column.target_name == name and column.mapper.look_ahead == ahead
            ]
            rule = f"{length + ahead}: {', '.join(users)} looks {ahead} ahead"
        else:
            rule = f"{length}, or {length + 1} with the value after the last transition"
        raise SequenceError(
            f"column '{name}': has {count} rows, but '{key}' says the sequence has {length} "
            f"transitions; give {rule}",
            column=name,
            rows=count,
            length=length,
        )


_Plan = tuple[str, "np.dtype[Any] | None", int, tuple[int, ...], Column]


def _plan(column: Column) -> _Plan:
    """What the fast path compares; no array is right for a dtype numpy does not have."""
    dtype = column.dtype.numpy if column.dtype.exact_numpy else None
    return column.name, dtype, len(column.shape) + 1, column.shape, column


def as_rows(column: Column, value: Any) -> Array:
    """Convert one column's rows, of any accepted kind: [n, *shape].

    Raises:
        SequenceError: values that do not fit, naming the column.
    """
    array, source = to_array(column, value)
    if array.ndim == 0:
        raise SequenceError(
            f"column '{column.name}': is a single value, not one row per transition; "
            f"pass an array of shape {_pattern('steps', column.shape)}",
            column=column.name,
        )
    if len(array) == 0:
        return np.empty((0, *column.shape), column.dtype.numpy)
    if array.shape[1:] != column.shape:
        step = array.shape[1:]
        raise SequenceError(
            f"column '{column.name}': step shape is {step}, declared {column.shape}; pass "
            f"arrays of shape {_pattern('steps', column.shape)} or declare shape={step}",
            column=column.name,
            shape=step,
            declared=column.shape,
        )
    return cast(column, array, source)


def window_rows(column: Column, value: Any, windows: int) -> Array:
    """Convert values for the windows of a sample.

    Args:
        column: a stored column.
        value: [windows, steps, *shape] or [windows * steps, *shape].
        windows: how many, at least 1.

    Returns:
        [windows, steps, *shape] in the column's storage dtype.

    Raises:
        SequenceError: values that do not fit, naming the column.
    """
    array, source = to_array(column, value)
    flat = array.ndim == len(column.shape) + 1
    wanted = array.ndim == len(column.shape) + 2 or flat
    if wanted and array.shape[1 if flat else 2 :] == column.shape:
        steps = len(array) // windows if flat else array.shape[1]
        if steps and (windows * steps if flat else windows) == len(array):
            return cast(column, array, source).reshape(windows, steps, *column.shape)
    raise SequenceError(
        f"column '{column.name}': values have shape {array.shape} for {windows} windows; pass an "
        f"array of shape {_pattern('windows, steps', column.shape)} or "
        f"{_pattern('windows * steps', column.shape)}",
        column=column.name,
        shape=array.shape,
        declared=column.shape,
    )


def as_step(column: Column, value: Any) -> Array:
    """Convert one step's value: [*shape]; for a single element a plain number will do.

    Raises:
        SequenceError: a value that does not fit, naming the column.
    """
    array, source = to_array(column, value)
    if array.shape != column.shape:
        if array.size != 1 or math.prod(column.shape) != 1:
            raise SequenceError(
                f"column '{column.name}': step has shape {array.shape}, declared {column.shape}; "
                f"pass one value of shape {column.shape} per step, or declare shape={array.shape}",
                column=column.name,
                shape=array.shape,
                declared=column.shape,
            )
        array = array.reshape(column.shape)
    return cast(column, array, source)


def as_tag(column: Column, value: Any) -> Array:
    """Convert one tag: [*shape], the first of several.

    Raises:
        SequenceError: a value that does not fit, naming the column.
    """
    array, source = to_array(column, value)
    if array.ndim == len(column.shape) + 1 and len(array):
        array = array[0]
    if array.shape != column.shape:
        raise SequenceError(
            f"column '{column.name}': tag has shape {array.shape}, declared {column.shape}; pass "
            f"one value of shape {column.shape} per sequence, or at least one in an array of "
            f"shape {_pattern('values', column.shape)}",
            column=column.name,
            shape=array.shape,
            declared=column.shape,
        )
    return cast(column, array, source)


def _pattern(first: str, shape: tuple[int, ...]) -> str:
    comma = "" if shape or "," in first else ","
    return f"({', '.join([first, *map(str, shape)])}{comma})"
