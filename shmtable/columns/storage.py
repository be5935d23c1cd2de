"""Columns in CPU memory: writes a sequence's rows, gathers windows of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns.convert import Prepared
from shmtable.columns.runs import merged
from shmtable.columns.schema import Schema
from shmtable.columns.spec import Column
from shmtable.types import Int64Array, rows_of

# Up to this size numpy copies, in this thread alone. Its call is the cheaper one, and waking
# torch's other threads costs more than they save: milliseconds where actors keep every core busy.
# Larger results are shared between torch's threads; numpy's memory for them comes in huge pages
# (from this very size on), which saves most of the page faults.
_ALONE_BYTES = 2**22

# Views kept per storage, none with memory of its own; more would be lengths that never recur.
_MAX_VIEWS = 1024

# Below so many bytes each, copying runs of rows together is quicker than handing out each run.
_SHORT_BYTES = 2048

_WORDS = (torch.int64, torch.int32, torch.int16, torch.uint8)


@dataclass(frozen=True, slots=True)
class _View:
    """A column as overlapping windows [starts], so that selecting one copies it in one piece.

    Attributes:
        window_bytes: bytes of one window.
        windows: every window as one opaque item, for numpy.
        dtype: numpy dtype of the rows.
        tensor: the same windows as [starts, words] of integers, for torch. Wide ones: windows of
            more elements than torch's grain size (32768) are copied through a slower path.
        shape: of one row.
        recast: the column's torch dtype, where numpy has none like it.
    """

    window_bytes: int
    windows: npt.NDArray[Any]
    dtype: np.dtype[Any]
    tensor: Tensor
    shape: tuple[int, ...]
    recast: torch.dtype | None


class CpuStorage:
    """The columns of a table in one process's address space.

    Args:
        schema: the table's columns.
        rows: for each stored column its whole region, uint8, aligned to 64 bytes, a multiple of
            the column's row bytes. Most of it may be unreserved: nothing but the rows asked for
            is ever touched.
        tags: likewise for each tag column, one row per slot.
        steps_since: for slots (int64 [B]), how many transitions were added to the table after
            their sequences: int64 [B].
    """

    def __init__(
        self,
        schema: Schema,
        rows: dict[str, Tensor],
        tags: dict[str, Tensor],
        steps_since: Callable[[Int64Array], Int64Array] = np.zeros_like,
    ) -> None:
        self.steps_since = steps_since
        self._tag_names = frozenset(tags)
        self._columns = {column.name: column for column in (*schema.stored, *schema.tags)}
        self._regions = {name: (rows | tags)[name] for name in self._columns}
        self._places = {column.name: place for place, column in enumerate(schema.stored)}
        self._row_arrays = [self._array(column) for column in schema.stored]
        self._tag_arrays = [self._array(column) for column in schema.tags]
        self._views: dict[tuple[str, int, int], _View] = {}

    def write(self, start: int, slot: int, prepared: Prepared) -> None:
        """Copy a sequence in: its rows from ``start`` on, its tags to ``slot``."""
        for array, rows in zip(self._row_arrays, prepared.rows, strict=True):
            array[start : start + len(rows)] = rows
        for array, tag in zip(self._tag_arrays, prepared.tags, strict=True):
            array[slot] = tag

    def put(self, name: str, rows: Int64Array, values: npt.NDArray[Any]) -> None:
        """Store single rows of one stored column, in order: where one comes twice, the last counts.

        Args:
            name: the column.
            rows: int64 [n].
            values: [n, *shape], of the column's storage dtype.
        """
        self._row_arrays[self._places[name]][rows] = values

    def gather(self, name: str, starts: Int64Array, length: int, shift: int = 0) -> Tensor:
        """Copy windows of equal length out of one stored column.

        Args:
            name: the column.
            starts: int64 [B], first row of each window;
                0 <= start and start + shift + length <= rows.
            length: rows per window (L), at least 1.
            shift: rows added to every start, at least 0.

        Returns:
            [B * L, *shape] in the column's dtype; always a copy.
        """
        key = (name, length, shift)
        view = self._views.get(key) or self._new_view(key)
        if len(starts) * view.window_bytes <= _ALONE_BYTES:
            # Single rows do not overlap, and are taken in half the time of an indexing.
            found = view.windows.take(starts) if length == 1 else view.windows[starts]
        else:
            found = np.empty(len(starts), view.windows.dtype)
            words = torch.from_numpy(found.view(np.uint8)).view(view.tensor.dtype)
            out = words.view(len(starts), -1)
            torch.index_select(view.tensor, 0, torch.from_numpy(starts), out=out)
        rows = torch.from_numpy(np.ndarray((len(starts) * length, *view.shape), view.dtype, found))
        return rows if view.recast is None else rows.view(view.recast)

    def gather_tags(self, name: str, slots: Int64Array) -> Tensor:
        """Copy one tag per window.

        Args:
            name: a tag column.
            slots: int64 [B].

        Returns:
            [B, *shape] in the column's dtype; always a copy.
        """
        return self.gather(name, slots, 1)

    def is_tag(self, name: str) -> bool:
        """Whether this column has one value per sequence instead of one per transition."""
        return name in self._tag_names

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Copy ``count`` consecutive rows of one stored column: [count, *shape]."""
        column = self._columns[name]
        row = column.row_bytes
        data = self._regions[name].narrow(0, start * row, count * row).clone()
        return data.view(column.dtype.torch).view(count, *column.shape)

    def read_tag(self, name: str, slot: int) -> Tensor:
        """Copy the tag of one slot: [*shape]."""
        return self.read(name, slot, 1)[0]

    # -- rows as plain bytes, for files --------------------------------------------------------

    def bytes_of(self, name: str, starts: Int64Array, counts: Int64Array) -> list[memoryview]:
        """The bytes of many runs of rows, one after the other, to be read.

        Args:
            name: a stored column, or a tag column, whose rows are slots.
            starts: int64 [n], first row of each run; nothing but rows that are reserved.
            counts: int64 [n], rows of each run, at least 1.

        Returns:
            The memory itself, in as few pieces as it lies in, or one copy if they are short.
        """
        starts, counts = merged(starts, counts)
        row = self._columns[name].row_bytes
        if int(counts.sum()) * row >= _SHORT_BYTES * len(starts):
            return self.memory_of(name, starts, counts)
        rows = self._regions[name].numpy().view(f"V{row}")
        return [rows.take(rows_of(starts, counts)).view(np.uint8).data]

    def memory_of(self, name: str, starts: Int64Array, counts: Int64Array) -> list[memoryview]:
        """Like ``bytes_of``, to be written: always the memory itself."""
        starts, counts = merged(starts, counts)
        row, memory = self._columns[name].row_bytes, self._regions[name].numpy().data
        return [
            memory[start : start + count]
            for start, count in zip((starts * row).tolist(), (counts * row).tolist(), strict=True)
        ]

    def _new_view(self, key: tuple[str, int, int]) -> _View:
        name, length, shift = key
        column, region = self._columns[name], self._regions[name]
        row = column.row_bytes
        window = length * row
        count = len(region) // row - shift - length + 1
        word = next(word for word in _WORDS if row % word.itemsize == 0)
        words = region.view(word)
        step = row // word.itemsize
        view = _View(
            window_bytes=window,
            windows=np.ndarray((count,), f"V{window}", region.numpy(), shift * row, (row,)),
            dtype=column.dtype.numpy,
            tensor=words.as_strided(
                (count, length * step), (step, 1), words.storage_offset() + shift * step
            ),
            shape=column.shape,
            recast=None if column.dtype.exact_numpy else column.dtype.torch,
        )
        if len(self._views) >= _MAX_VIEWS:
            self._views.clear()
        self._views[key] = view
        return view

    def _array(self, column: Column) -> npt.NDArray[Any]:
        """A column's region as [rows, *shape] of the dtype that is written."""
        array: npt.NDArray[Any] = self._regions[column.name].numpy().view(column.dtype.numpy)
        return np.reshape(array, (-1, *column.shape))
