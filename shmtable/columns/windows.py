"""Windows of one batch, as mappers see them, and the gathering of a whole sample."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns.schema import Schema
from shmtable.columns.spec import Column
from shmtable.types import Int64Array

MASK_NAME = "mask"  # of the column that padding adds


class Storage(Protocol):
    """Where the columns' rows lie; see :class:`~shmtable.columns.storage.CpuStorage`."""

    def gather(self, name: str, starts: Int64Array, length: int, shift: int = 0) -> Tensor: ...

    def gather_copied(self, starts: Int64Array, length: int, found: dict[str, Tensor]) -> None: ...

    def gather_tags(self, name: str, slots: Int64Array) -> Tensor: ...

    def is_tag(self, name: str) -> bool: ...

    def steps_since(self, slots: Int64Array) -> Int64Array: ...

    def bring(self, values: npt.NDArray[Any]) -> Tensor: ...

    @property
    def host(self) -> bool: ...


class Windows:
    """B windows of L consecutive transitions each, one sequence per window.

    What is gathered is on the device that holds the columns. What follows from places and lengths
    (:meth:`positions`, :meth:`ends` and so on) is on the CPU, and so is what :meth:`gather_at`
    takes; a mapper may return either.

    Args:
        storage: where the rows lie.
        slots: int64 [B], index entry of each window's sequence.
        starts: int64 [B], absolute row of each window's first transition.
        offsets: int64 [B], position of that transition in its sequence.
        lengths: int64 [B], transitions in the sequence; offset < length.
        steps: L, at least 1.
        clamp: windows may reach past the end of their sequence; the steps there repeat its last
            transition. Without it, offset + L <= length holds for every window.
    """

    __slots__ = (
        "_left",
        "_lengths",
        "_offsets",
        "_rows",
        "_slots",
        "_starts",
        "_storage",
        "clamped",
        "steps",
    )

    def __init__(
        self,
        storage: Storage,
        slots: Int64Array,
        starts: Int64Array,
        offsets: Int64Array,
        lengths: Int64Array,
        steps: int,
        clamp: bool = False,
    ) -> None:
        # As arrays: on this few numbers, numpy computes in a third of torch's time.
        self._storage = storage
        self._slots = slots
        self._starts = starts
        self._offsets = offsets
        self._lengths = lengths
        self.steps = steps
        self._left: Int64Array = lengths - offsets
        self._rows: Int64Array | None = None
        # True when a window really reaches past its sequence: only then is more work needed.
        self.clamped = clamp and bool((self._left < steps).any())

    def __len__(self) -> int:
        """B, the windows in the batch."""
        return len(self._starts)

    @property
    def host(self) -> bool:
        """Whether what is gathered is in the CPU's memory, for numpy to compute with."""
        return self._storage.host

    def bring(self, values: npt.NDArray[Any]) -> Tensor:
        """What the CPU has computed, where what is gathered is: to compute with both."""
        return self._storage.bring(values)

    def places(self) -> list[Int64Array]:
        """int64 [n] each: what columns are gathered by that are handed out as they are."""
        return [self._flat_rows() if self.clamped else self._starts, self._slots]

    @property
    def offsets(self) -> Tensor:
        """int64 [B], position of each window's first transition in its sequence; read only."""
        return torch.from_numpy(self._offsets)

    @property
    def lengths(self) -> Tensor:
        """int64 [B], transitions in each window's sequence; read only."""
        return torch.from_numpy(self._lengths)

    def gather(self, name: str, shift: int = 0) -> Tensor:
        """Copy the windows out of one stored column.

        Args:
            name: a stored column that looks ahead at least ``shift`` rows.
            shift: steps later than the window's own transitions, at least 0.

        Returns:
            [B * L, *shape] in the column's dtype; always a copy, of which nobody else has the
            same elements. Its rows may lie among those of other columns.
        """
        if self.clamped:
            return self._storage.gather(name, self._flat_rows(), 1, shift)
        return self._storage.gather(name, self._starts, self.steps, shift)

    def gather_copied(self, found: dict[str, Tensor]) -> None:
        """Copy all columns that are rows as they are (``Schema.copied``), each as ``gather`` does.

        Args:
            found: where they go, by name.
        """
        if self.clamped:
            self._storage.gather_copied(self._flat_rows(), 1, found)
        else:
            self._storage.gather_copied(self._starts, self.steps, found)

    def gather_last(self, name: str, shift: int = 0) -> Tensor:
        """Copy one row per window: its last transition's, ``shift`` steps later.

        Returns:
            [B, *shape] in the column's dtype; always a copy.
        """
        if self.clamped:
            lasts = self._flat_rows()[self.steps - 1 :: self.steps]
            return self._storage.gather(name, lasts, 1, shift)
        return self._storage.gather(name, self._starts, 1, self.steps - 1 + shift)

    def gather_first(self, name: str) -> Tensor:
        """Copy one row per window: its first transition's.

        Returns:
            [B, *shape] in the column's dtype; always a copy.
        """
        return self._storage.gather(name, self._starts, 1)

    def gather_at(self, name: str, positions: Tensor, ahead: int = 0) -> Tensor:
        """Copy any rows of the windows' own sequences out of one stored column.

        This is how a mapper looks back, or ahead by more than its look-ahead. A position outside
        its sequence is moved to the nearest row in it, so nothing of another one is ever read;
        :meth:`positions` and :meth:`remaining` tell which are outside.

        Args:
            name: a stored column.
            positions: int64 [B * L] or [B * L, k], positions in each step's sequence.
            ahead: rows behind the last transition that belong to the sequence too; at most what
                the column looks ahead.

        Returns:
            [*positions.shape, *shape] in the column's dtype; always a copy.
        """
        lasts = self._lengths + (ahead - 1)
        firsts = self._starts - self._offsets
        if self.steps > 1:
            lasts, firsts = lasts.repeat(self.steps), firsts.repeat(self.steps)
        if positions.ndim > 1:
            lasts, firsts = lasts[:, None], firsts[:, None]
        rows = np.minimum(positions.numpy(), lasts)
        np.maximum(rows, 0, out=rows)
        rows += firsts
        found = self._storage.gather(name, rows.reshape(-1), 1)
        return found if positions.ndim == 1 else found.view(*rows.shape, *found.shape[1:])

    def gather_tags(self, name: str) -> Tensor:
        """Copy one value per window out of a tag column: [B, *shape]."""
        return self._storage.gather_tags(name, self._slots)

    def is_tag(self, name: str) -> bool:
        """Whether this column is a tag, which only :meth:`gather_tags` reads."""
        return self._storage.is_tag(name)

    def positions(self) -> Tensor:
        """int64 [B * L], each step's position in its sequence, repeated where clamped."""
        positions = self._offsets[:, None] + (_count_from_one(self.steps) - 1)
        if self.clamped:
            np.minimum(positions, (self._lengths - 1)[:, None], out=positions)
        return torch.from_numpy(positions.reshape(-1))

    def remaining(self) -> Tensor:
        """int64 [B * L], transitions from each step to its sequence's end: 1 on the last."""
        remaining = self._left[:, None] - (_count_from_one(self.steps) - 1)
        if self.clamped:
            np.maximum(remaining, 1, out=remaining)
        return torch.from_numpy(remaining.reshape(-1))

    def ages(self) -> Tensor:
        """int64 [B * L], transitions that were added to the table after each step's; 0: none."""
        since = self._storage.steps_since(self._slots)
        if self.steps > 1:
            since = since.repeat(self.steps)
        return torch.from_numpy(since + (self.remaining().numpy() - 1))

    def ends(self, last: bool = True) -> Tensor:
        """bool [B * L], True on the last transition of a sequence (on all others if not ``last``).

        Steps past the end repeat the last transition, so they are ends too.
        """
        if self.clamped:
            compare = np.greater_equal if last else np.less
            ends = compare(_count_from_one(self.steps), self._left[:, None]).reshape(-1)
        else:
            # A window inside its sequence can end it with its own last step only.
            ends = np.equal(self._left, _as_array(self.steps))
            if self.steps > 1:
                lasts = ends
                ends = np.zeros(len(lasts) * self.steps, np.bool_)
                ends[self.steps - 1 :: self.steps] = lasts
            if not last:
                np.logical_not(ends, out=ends)
        return torch.from_numpy(ends)

    def valid(self) -> Tensor:
        """bool [B * L], False on steps past the end of the sequence."""
        if not self.clamped:
            return torch.from_numpy(np.ones(len(self._left) * self.steps, np.bool_))
        valid = _count_from_one(self.steps) <= self._left[:, None]
        return torch.from_numpy(valid.reshape(-1))

    def _flat_rows(self) -> Int64Array:
        """int64 [B * L], absolute rows; the last transition's where the sequence has ended."""
        if self._rows is None:
            rows: Int64Array = np.minimum(_count_from_one(self.steps), self._left[:, None])
            rows += (self._starts - 1)[:, None]
            self._rows = rows.reshape(-1)
        return self._rows


@lru_cache(maxsize=256)
def _count_from_one(steps: int) -> Int64Array:
    """int64 [L]: 1, 2, ... L. Shared between calls, never written."""
    return np.arange(1, steps + 1)


@lru_cache(maxsize=256)
def _as_array(steps: int) -> Int64Array:
    """int64 []: what numpy would make of the number each time. Shared, never written."""
    return np.array(steps)


def gather_columns(
    schema: Schema,
    windows: Windows,
    *,
    pad: str | None = None,
    layout: str = "flat",
) -> dict[str, Tensor]:
    """Copy one batch of windows out of every column.

    Args:
        schema: the table's columns.
        windows: B windows of L steps; clamped if ``pad`` is given.
        pad: what stands in steps past the end of a sequence: "zero", or "edge", its last
            transition; either adds the column "mask", bool, False on those steps.
        layout: shape of the columns with one row per transition: "flat" [B * L, *shape],
            "batch_time" [B, L, *shape].

    Returns:
        Column name to tensor in declared order, always copies; tags and per-window virtual
        columns are [B, *shape] in either layout.
    """
    result: dict[str, Any] = schema.in_order.copy()
    windows.gather_copied(result)
    for column in schema.computed:
        result[column.name] = column.gather(windows)
    if pad is None and layout == "flat":
        return result
    steps = windows.steps
    past_end = _Zeroed(windows) if pad == "zero" and windows.clamped else None
    for column in schema.columns:
        if not column.per_window:
            if past_end is not None:
                past_end.zero(column, result[column.name])
            if layout == "batch_time":
                result[column.name] = result[column.name].view(-1, steps, *column.shape)
    if pad is not None:
        mask = windows.valid()
        result[MASK_NAME] = mask.view(-1, steps) if layout == "batch_time" else mask
    return result


class _Zeroed:
    """The steps past the end of their sequences, where they are to hold zeros."""

    def __init__(self, windows: Windows) -> None:
        self._here = ~windows.valid()
        # Once for all columns; those that the CPU has computed are still here.
        self._there = self._here if windows.host else windows.bring(self._here.numpy())

    def zero(self, column: Column, value: Tensor) -> None:
        """Zero them in [B * L, *shape], in place."""
        rows = self._there if value.device == self._there.device else self._here
        # As bits: few operations exist for float8 or uint16, and zero bits mean zero in all.
        bits = value.view(column.dtype.carrier)
        bits.masked_fill_(rows.view(-1, *(1 for _ in column.shape)), 0)
