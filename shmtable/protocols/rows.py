"""Columns as plain bytes, for copying whole sequences between a table and a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.columns import Column, MapperLike, TagColumn, VirtualColumn
from shmtable.formats import FileColumn
from shmtable.index.arrays import rows_of
from shmtable.mappers import NextElementMapper, SyntheticDones
from shmtable.protocols.core import Core
from shmtable.types import Int64Array

# Below so many bytes each, copying runs of rows together is quicker than handing out each run.
_SHORT_BYTES = 2048


class RowBytes:
    """One stored column's or tag's memory, row by row.

    Only rows of sequences that are there (or are being loaded by us) may be touched: the rest of
    the address space is not backed by memory.
    """

    def __init__(self, core: Core, column: Column) -> None:
        kind = "tag" if isinstance(column, TagColumn) else "column"
        region = core.layout.regions[f"{kind}/{column.name}"]
        memory: npt.NDArray[np.uint8] = core.arena.memory.numpy()
        self.row_bytes = column.row_bytes
        self._bytes = memory[region.offset : region.offset + region.bytes]
        self._view = self._bytes.data
        self._rows: npt.NDArray[Any] = self._bytes.view(f"V{column.row_bytes}")

    def run(self, start: int, count: int) -> memoryview:
        """The memory of consecutive rows itself."""
        row = self.row_bytes
        return self._view[start * row : (start + count) * row]

    def runs(self, starts: Int64Array, counts: Int64Array) -> list[memoryview]:
        """The bytes of many runs, in order: the memory itself, or one copy if they are short."""
        if not len(starts):
            return []
        total = int(counts.sum())
        if total * self.row_bytes >= _SHORT_BYTES * len(starts):
            return [
                self.run(start, count)
                for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
            ]
        return [self._rows.take(rows_of(starts, counts)).view(np.uint8).data]


def file_columns(core: Core) -> list[FileColumn]:
    """The table's columns as a file declares them."""
    kinds = {column.name: "TagColumn" for column in core.schema.tags}
    targets = {column.name: column.target_name for column in core.schema.virtual}
    kinds.update(dict.fromkeys(targets, "VirtualColumn"))
    return [
        FileColumn(
            column.name,
            kinds.get(column.name, "Column"),
            column.shape,
            column.dtype,
            targets.get(column.name),
            legacy_mapper(column.mapper) if isinstance(column, VirtualColumn) else None,
        )
        for column in core.schema.columns
    ]


def legacy_mapper(mapper: MapperLike) -> str | None:
    """What the Legacy format calls a mapper; None if it does not know it."""
    if type(mapper) is NextElementMapper:
        return "NextElementMapper.with_only_last" if mapper.per_window else "NextElementMapper"
    if type(mapper) is SyntheticDones:
        return "SyntheticDones.as_mask" if mapper.mask else "SyntheticDones"
    return None
