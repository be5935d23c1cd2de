"""A table's columns on their way to a file: how they are declared, where their rows are."""

from __future__ import annotations

import numpy as np

from shmtable.columns import MapperLike, VirtualColumn
from shmtable.formats import FileColumn
from shmtable.index import fields as f
from shmtable.mappers import NextElementMapper, SyntheticDones
from shmtable.protocols.core import Core
from shmtable.protocols.snapshot import Snapshot
from shmtable.types import Int64Array


def stored_columns(core: Core, found: Snapshot) -> list[StoredColumn]:
    """The columns with rows of their own, tags among them, in declared order."""
    return [
        StoredColumn(core, column, found)
        for column in file_columns(core)
        if column.kind != "VirtualColumn"
    ]


class StoredColumn:
    """One column of the sequences found.

    Attributes:
        column: as a file declares it.
        starts, counts: int64 [n], the sequences' first rows and how many; of a tag, their slots.
    """

    def __init__(self, core: Core, column: FileColumn, found: Snapshot) -> None:
        self.column = column
        self._storage = core.storage
        self.starts: Int64Array
        self.counts: Int64Array
        if column.kind == "TagColumn":
            self.starts, self.counts = found.slots, np.ones(len(found), np.int64)
        else:
            place = [c.name for c in core.schema.stored].index(column.name)
            ahead = core.schema.look_ahead[column.name]
            self.starts = found.starts
            word, bit = divmod(place, f.EXTRA_BITS)
            self.counts = found.lengths + ahead + (found.extra[:, word] >> bit & 1)

    def views(self, which: Int64Array) -> list[memoryview]:
        """The rows' bytes of some of the sequences: the memory itself, or a copy of short ones."""
        return self._storage.bytes_of(self.column.name, self.starts[which], self.counts[which])


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
