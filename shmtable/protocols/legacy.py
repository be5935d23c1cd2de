"""Storing in the Legacy format: column by column, each sequence's rows for themselves.

A sequence that leaves while later columns are written stays in those before; the list of lengths,
which comes last, names only those that are in all columns, and readers go by it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shmtable.formats import PIECE_BYTES, Progress
from shmtable.formats.archive_writer import ArchiveWriter
from shmtable.formats.legacy_writer import SEQUENCE_BYTES, LegacyWriter
from shmtable.protocols.core import Core
from shmtable.protocols.parts import StoredColumn, file_columns, stored_columns
from shmtable.protocols.snapshot import (
    Snapshot,
    changed_locked,
    current_locked,
    snapshot,
    updates_locked,
)
from shmtable.types import BoolArray, Int64Array

# Where updates come faster than sequences are copied, they are copied under the lock in the end.
_ROUNDS = 4


def store_legacy(core: Core, out: ArchiveWriter, progress: Progress | None) -> None:
    """Write the table's content; see ``store``.

    Raises:
        TableFileError: strategies, mappers or dtypes that the format does not know.
    """
    found = snapshot(core)
    strategies = {"ejector": type(core.ejector).__name__, "sampler": type(core.sampler).__name__}
    writer = LegacyWriter(out, file_columns(core), strategies)
    columns = stored_columns(core, found)
    kept = np.arange(len(found))
    total = sum(int(column.counts.sum()) * column.column.row_bytes for column in columns)
    done = 0
    for column in columns:
        sequences = _Sequences(core, found, column)
        sizes = column.counts[kept] * column.column.row_bytes + SEQUENCE_BYTES
        writer.column(column.column, sequences.of(kept), int(sizes.sum()))
        kept = sequences.written()
        done += int(column.counts.sum()) * column.column.row_bytes
        if progress is not None:
            progress(done, total)
    found = found.only(kept)
    lengths = dict(zip(found.identities.tolist(), found.lengths.tolist(), strict=True))
    writer.finish(core.schema.length_key, core.maxlen(), lengths, core.is_full())


class _Sequences:
    """One column's rows, sequence by sequence, without those that leave meanwhile."""

    def __init__(self, core: Core, found: Snapshot, column: StoredColumn) -> None:
        self._core = core
        self._found = found
        self._column = column
        self._written = [np.empty(0, np.int64)]

    def of(self, which: Int64Array) -> Iterator[tuple[int, list[memoryview], int]]:
        """Identity, rows and their number."""
        sizes = np.cumsum(self._column.counts[which] * self._column.column.row_bytes)
        batches = np.flatnonzero(np.diff(sizes // PIECE_BYTES)) + 1
        for batch in np.split(which, batches):
            copies, current = self._copies(batch)
            self._written.append(batch[current])
            for index, copy, is_current in zip(
                batch.tolist(), copies, current.tolist(), strict=True
            ):
                if is_current:
                    count = int(self._column.counts[index])
                    yield int(self._found.identities[index]), copy, count

    def _copies(self, batch: Int64Array) -> tuple[list[list[memoryview]], BoolArray]:
        """Each sequence's rows, and which of them are good."""
        core, found = self._core, self._found.only(batch)
        for _ in range(_ROUNDS):
            updates = core.guard.run(updates_locked, core)
            copies = self._copy(batch)
            if not core.guard.run(changed_locked, core, found, updates):
                break
        else:
            copies = core.guard.run(self._copy, batch)
        return copies, core.guard.run(current_locked, core, found)

    def _copy(self, batch: Int64Array) -> list[list[memoryview]]:
        return [
            [memoryview(bytes(view)) for view in self._column.views(batch[n : n + 1])]
            for n in range(len(batch))
        ]

    def written(self) -> Int64Array:
        """int64 [k], the sequences that have been given out."""
        return np.concatenate(self._written)
