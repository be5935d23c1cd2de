"""Columns in CPU memory: writes a sequence's rows, gathers windows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns.convert import Prepared
from shmtable.columns.schema import Schema
from shmtable.columns.spec import Column

# Window views kept per storage; each is a tensor object without memory of its own.
_MAX_VIEWS = 1024


class CpuStorage:
    """The columns of a table in one process's address space.

    Args:
        schema: the table's columns.
        rows: for each stored column its whole region, uint8, aligned to 64 bytes, a multiple of
            the column's row bytes. Most of it may be unreserved: nothing but the rows asked for
            is ever touched.
        tags: likewise for each tag column, one row per slot.
    """

    def __init__(
        self, schema: Schema, rows: Mapping[str, Tensor], tags: Mapping[str, Tensor]
    ) -> None:
        self._columns = {column.name: column for column in (*schema.stored, *schema.tags)}
        self._regions = {
            column.name: _typed(column, region[column.name])
            for columns, region in ((schema.stored, rows), (schema.tags, tags))
            for column in columns
        }
        self._row_arrays = [_array(column, rows[column.name]) for column in schema.stored]
        self._tag_arrays = [_array(column, tags[column.name]) for column in schema.tags]
        self._views: dict[
            tuple[str, int, int], tuple[Callable[..., Tensor], Any, torch.dtype | None]
        ] = {}

    def write(self, start: int, slot: int, prepared: Prepared) -> None:
        """Copy a sequence in: its rows from ``start`` on, its tags to ``slot``."""
        for array, rows in zip(self._row_arrays, prepared.rows, strict=True):
            array[start : start + len(rows)] = rows
        for array, tag in zip(self._tag_arrays, prepared.tags, strict=True):
            array[slot] = tag

    def gather(self, name: str, starts: Tensor, length: int, shift: int = 0) -> Tensor:
        """Copy windows of equal length out of one stored column.

        Args:
            name: the column.
            starts: int64 [B], first row of each window; start + shift + length <= rows.
            length: rows per window (L), at least 1.
            shift: rows added to every start, at least 0.

        Returns:
            [B * L, *shape] in the column's dtype; always a copy.
        """
        key = (name, length, shift)
        select, shape, dtype = self._views.get(key) or self._new_view(key)
        rows = select(0, starts)
        if shape is not None:
            rows = rows.view(shape)
        return rows if dtype is None else rows.view(dtype)

    def gather_tags(self, name: str, slots: Tensor) -> Tensor:
        """Copy one tag per window.

        Args:
            name: a tag column.
            slots: int64 [B].

        Returns:
            [B, *shape] in the column's dtype; always a copy.
        """
        return self.gather(name, slots, 1)

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Copy ``count`` consecutive rows of one stored column: [count, *shape]."""
        rows = self._regions[name].narrow(0, start, count).clone()
        return rows.view(self._columns[name].dtype.torch)

    def read_tag(self, name: str, slot: int) -> Tensor:
        """Copy the tag of one slot: [*shape]."""
        return self.read(name, slot, 1)[0]

    def _new_view(
        self, key: tuple[str, int, int]
    ) -> tuple[Callable[..., Tensor], Any, torch.dtype | None]:
        """A column as overlapping windows, so that selecting one copies it in one piece."""
        name, length, shift = key
        column, region = self._columns[name], self._regions[name]
        row = region.stride(0)
        windows = region.as_strided(
            (len(region) - shift - length + 1, length, *column.shape),
            (row, *region.stride()),
            shift * row + region.storage_offset(),
        )
        shape = (-1, *column.shape)
        if length == 1:  # rows are their own windows: no reshaping afterwards
            windows = windows.squeeze(1)
        dtype = column.dtype.torch
        view = (
            windows.index_select,
            None if length == 1 else shape,
            None if dtype == column.dtype.carrier else dtype,
        )
        if len(self._views) >= _MAX_VIEWS:
            self._views.clear()  # cheaper than keeping order, and never reached with fixed lengths
        self._views[key] = view
        return view


def _typed(column: Column, region: Tensor) -> Tensor:
    """The region as [rows, *shape] of the dtype that is gathered."""
    return region.view(column.dtype.carrier).view(-1, *column.shape)


def _array(column: Column, region: Tensor) -> npt.NDArray[Any]:
    """The region as [rows, *shape] of the dtype that is written; keeps the memory alive."""
    array: npt.NDArray[Any] = region.numpy().view(column.dtype.numpy)
    return np.reshape(array, (-1, *column.shape))
