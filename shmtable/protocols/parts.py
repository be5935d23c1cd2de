"""The columns of the sequences found in a table: where their rows are."""

from __future__ import annotations

import numpy as np

from shmtable.formats import FileColumn
from shmtable.index import fields as f
from shmtable.protocols.core import Core
from shmtable.protocols.rows import RowBytes, file_columns
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
        self.starts: Int64Array
        self.counts: Int64Array
        if column.kind == "TagColumn":
            self.starts, self.counts = found.slots, np.ones(len(found), np.int64)
            self._rows = RowBytes(core, next(c for c in core.schema.tags if c.name == column.name))
        else:
            place = [c.name for c in core.schema.stored].index(column.name)
            ahead = core.schema.look_ahead[column.name]
            self.starts = found.starts
            word, bit = divmod(place, f.EXTRA_BITS)
            self.counts = found.lengths + ahead + (found.extra[:, word] >> bit & 1)
            self._rows = RowBytes(core, core.schema.stored[place])

    def views(self, which: Int64Array) -> list[memoryview]:
        """The rows' bytes of some of the sequences: the memory itself, or a copy of short ones."""
        return self._rows.runs(self.starts[which], self.counts[which])
