"""Storing: a file of the table's content, while the table goes on.

1. Under the lock: the list of live sequences. Each column gets room in the file for all of them.
2. For a few MiB of sequences at a time, holding nothing: write their rows from the table's memory
   to the file, and compute checksums, at the same time.
3. Under the lock: compare generations and versions. Sequences that have left meanwhile are not
   counted in, and the batch is written again without them, or because its rows were updated; what
   has been counted in is sound, because a generation rises before its rows are given to anybody
   else, and a version before rows are updated in place.
4. Headers, ranges and directory; then the file takes the place of the old one.

Nothing is copied in memory, and nobody waits for more than a comparison of generations.
"""

from __future__ import annotations

import itertools
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.formats import (
    PIECE_BYTES,
    Progress,
    Strategy,
    TableSerializationVersion,
)
from shmtable.formats.archive_writer import ArchiveWriter
from shmtable.formats.atomic import replacing
from shmtable.formats.v1_writer import ColumnWriter, Summary, V1Writer
from shmtable.protocols.core import Core
from shmtable.protocols.legacy import store_legacy
from shmtable.protocols.parts import StoredColumn, file_columns, stored_columns
from shmtable.protocols.snapshot import (
    COPIED,
    Snapshot,
    changed_locked,
    current_locked,
    snapshot,
    updates_locked,
)
from shmtable.types import BoolArray, Int64Array, rows_of

# Where updates come faster than a batch is written, it is copied under the lock in the end.
_ROUNDS = 4


def store(
    core: Core, path: str, version: TableSerializationVersion, progress: Progress | None = None
) -> None:
    """Write the table to a file, atomically.

    Args:
        core: the table.
        path: of the file itself.
        version: format to write.
        progress: called after each few MiB.

    Raises:
        OSError: no space, or no right to write; the file there is as it was.
        TableFileError: column names or strategy states that the format cannot hold.
    """
    with replacing(path) as descriptor:
        out = ArchiveWriter(descriptor)
        if version is TableSerializationVersion.Legacy:
            warnings.warn(
                "the Legacy format is deprecated: it holds no priorities, sample counts or random "
                "state, and no negative identities once it is read; store the table as V1",
                DeprecationWarning,
                stacklevel=3,
            )
            store_legacy(core, out, progress)
        else:
            _store_v1(core, out, progress)


def _store_v1(core: Core, out: ArchiveWriter, progress: Progress | None) -> None:
    found = snapshot(core)
    columns = stored_columns(core, found)
    most_rows = {c.column.name: int(c.counts.sum()) for c in columns}
    writer = V1Writer(out, file_columns(core), core.schema.length_key, core.maxlen(), most_rows)
    strategies = _Strategies(core)
    kept = _copy(core, found, _Target(columns, writer), strategies, progress)
    found = found.only(kept)
    counts = {c.column.name: c.counts[kept] for c in columns}
    writer.finish(
        Summary(
            found.identities,
            found.lengths,
            found.orders,
            found.times_sampled,
            counts,
            strategies.collected(),
            core.guard.run(_random_locked, core),
        )
    )


class _Target:
    """Where the columns' rows go."""

    def __init__(self, columns: list[StoredColumn], writer: V1Writer) -> None:
        self.columns = columns
        self.writers: list[ColumnWriter] = [writer.columns[c.column.name] for c in columns]

    def write(self, views: list[list[memoryview]]) -> list[int]:
        """Write rows behind those counted in; returns the bytes of each column."""
        return [
            writer.member.write(parts, writer.end)
            for writer, parts in zip(self.writers, views, strict=True)
        ]

    def checksums(self, views: list[list[memoryview]]) -> list[int]:
        """Each column's checksum with these rows counted in."""
        found = []
        for writer, parts in zip(self.writers, views, strict=True):
            crc = writer.crc
            for part in parts:
                crc = zlib.crc32(part, crc)
            found.append(crc)
        return found


def _copy(
    core: Core,
    found: Snapshot,
    target: _Target,
    strategies: _Strategies,
    progress: Progress | None,
) -> Int64Array:
    """Write all rows; returns which sequences of ``found`` are in the file."""
    sizes = np.zeros(len(found), np.int64)
    for column in target.columns:
        sizes += column.counts * column.column.row_bytes
    ends = np.cumsum(sizes)
    total, first = int(sizes.sum()), 0
    kept = [np.empty(0, np.int64)]
    with ThreadPoolExecutor(1, "shmtable-store") as helper:
        while first < len(found):
            done = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, done + PIECE_BYTES)), first + 1)
            batch = np.arange(first, last)
            kept.append(_copy_batch(core, found, target, batch, strategies, helper))
            first = last
            if progress is not None:
                progress(int(ends[last - 1]), total)
    return np.concatenate(kept)


def _copy_batch(
    core: Core,
    found: Snapshot,
    target: _Target,
    batch: Int64Array,
    strategies: _Strategies,
    helper: ThreadPoolExecutor,
) -> Int64Array:
    """Write the batch's rows until a whole writing of them was undisturbed."""
    batch = batch[core.guard.run(current_locked, core, found.only(batch))]
    for attempt in itertools.count(1):
        updates = core.guard.run(updates_locked, core)
        views = [column.views(batch) for column in target.columns]
        if attempt > _ROUNDS:
            updates = core.guard.run(_copy_locked, core, found.only(batch), views)
        sums = helper.submit(target.checksums, views)
        try:
            sizes = target.write(views)
        finally:
            crcs = sums.result()  # it reads the table's memory: never leave it behind
        current = core.guard.run(_validate_locked, core, found.only(batch), strategies, updates)
        if current is None:
            for writer, size, crc in zip(target.writers, sizes, crcs, strict=True):
                writer.count_in(size, crc)
            return batch
        batch = batch[current]
        if not len(batch):
            break
    return batch


def _copy_locked(core: Core, batch: Snapshot, views: list[list[memoryview]]) -> int:
    """Put copies in the place of the table's memory; what is updated later does not matter."""
    for parts in views:
        parts[:] = [memoryview(bytes(part)) for part in parts]
    return COPIED if current_locked(core, batch).all() else 0


def _validate_locked(
    core: Core, batch: Snapshot, strategies: _Strategies, updates: int
) -> BoolArray | None:
    """None when the whole batch is still there, as it was after update number ``updates``.

    Then the strategies' share is taken too. Otherwise which sequences are still there.
    """
    current = current_locked(core, batch)
    if not current.all() or changed_locked(core, batch, updates):
        return current
    strategies.take_locked(batch)
    return None


def _random_locked(core: Core) -> Any:
    return _plain(core.random_locked().bit_generator.state)


def _plain(value: Any) -> Any:
    """A generator's state in types that JSON knows."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value if isinstance(value, str) else int(value)


class _Strategies:
    """What the sampler and the ejector keep of each sequence, taken along with its rows."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._roles = {"sampler": core.sampler, "ejector": core.ejector}
        self._taken: dict[tuple[str, str], list[npt.NDArray[Any]]] = {
            (role, state.name): []
            for role, strategy in self._roles.items()
            for state in strategy.states()
            if state.kept
        }
        self._per = {
            (role, state.name): state.per
            for role, strategy in self._roles.items()
            for state in strategy.states()
            if state.kept
        }

    def take_locked(self, batch: Snapshot) -> None:
        """Copy the items of a batch of live sequences."""
        for (role, name), taken in self._taken.items():
            array = self._roles[role].arrays[name]
            per_slot = self._per[role, name] == "slot"
            taken.append(array[batch.slots if per_slot else rows_of(batch.starts, batch.lengths)])

    def collected(self) -> dict[str, Strategy]:
        """All of it, as a file keeps it."""
        collected = {}
        for role, strategy in self._roles.items():
            arrays = {
                name: np.concatenate([strategy.arrays[name][:0], *taken])
                for (of, name), taken in self._taken.items()
                if of == role
            }
            state = self._core.guard.run(strategy.state)
            collected[role] = Strategy(type(strategy).__name__, state, arrays)
        return collected
