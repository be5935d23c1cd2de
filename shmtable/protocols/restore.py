"""Restoring: the file's rows go straight into the table's memory, unseen until all are checked.

1. Everything in the file but the rows is checked, and compared with the table.
2. Rows are read into loaded slots, which nobody else sees; their checksums are computed from
   there, in another thread, while the next ones are read.
3. When the last checksum is right, one store makes all of them live and all others gone.

An error in 1 or 2 leaves the table as it was.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from shmtable.columns import Column, CpuStorage, DeviceStorage
from shmtable.formats import (
    PIECE_BYTES,
    Content,
    Part,
    Progress,
    TableSerializationVersion,
    opened,
)
from shmtable.index import Request, Reservation
from shmtable.protocols.core import Core
from shmtable.protocols.fit import Fitting, fit
from shmtable.protocols.load import MOST_AT_ONCE, load
from shmtable.protocols.resume import Resuming
from shmtable.types import Int64Array, rows_of

# A compressed member may hold this many times what the table can: a larger table's file.
_PROPORTION = 64


def restore(
    core: Core,
    path: str,
    override_version: TableSerializationVersion | None,
    *,
    strict: bool,
    progress: Progress | None,
) -> None:
    """Replace the table's content by a file's, for everybody at once.

    Args:
        core: the table.
        path: of the file itself.
        override_version: read it as this version.
        strict: whether missing and additional columns are errors.
        progress: called after each few MiB.

    Raises:
        TableFileError: of some kind; the table is as it was.
        CapacityError, SharedMemoryError: no room for old and new content side by side.
    """
    row = max(column.row_bytes for column in (*core.schema.stored, *core.schema.tags))
    most = _PROPORTION * row * core.maxlen() + (1 << 24)
    with opened(path, override_version, most_unpacked_bytes=most) as content:
        fitting = fit(core, content, strict)
        resuming = Resuming(core, content, fitting)
        with ThreadPoolExecutor(1, "shmtable-restore") as helper:
            rows = _Rows(core, content, fitting, helper, progress)
            load(core, rows.batches(), rows.read, on_publish=resuming.publish_locked)
        resuming.finish()


class _Rows:
    """Reads the rows of one file into reserved slots, in batches."""

    def __init__(
        self,
        core: Core,
        content: Content,
        fitting: Fitting,
        helper: ThreadPoolExecutor,
        progress: Progress | None,
    ) -> None:
        self._core = core
        self._content = content
        self._fitting = fitting
        self._helper = helper
        self._progress = progress
        self._next = fitting.first
        self._sums: list[Future[None]] = []
        columns = (*core.schema.stored, *core.schema.tags)
        tags = {column.name for column in core.schema.tags}
        self._columns = [
            _Column(
                core.storage,
                column,
                fitting.parts[column.name],
                fitting.counts[column.name],
                column.name in tags,
            )
            for column in columns
        ]
        self._sizes = np.zeros_like(fitting.lengths)
        for column in self._columns:
            self._sizes += column.counts * column.row_bytes

    def batches(self) -> Iterator[list[Request]]:
        """What ``load`` asks for; ends when all rows are read and all checksums are right."""
        self._check_apart()
        fitting = self._fitting
        ends = np.cumsum(self._sizes)
        total, begin = int(self._sizes[fitting.first :].sum()), fitting.first
        before = int(ends[begin - 1]) if begin else 0
        done = 0
        while begin < len(ends):
            end = max(int(np.searchsorted(ends, before + done + PIECE_BYTES)), begin + 1)
            end = min(end, begin + MOST_AT_ONCE)
            yield self._requests(begin, end)
            begin, done = end, int(ends[end - 1]) - before
            if self._progress is not None:
                self._progress(done, total)
        for future in self._sums:
            future.result()
        for column in self._columns:
            column.compare()
        if self._progress is not None:
            self._progress(total, total)

    def read(self, reservations: list[Reservation]) -> None:
        """Read the rows of the next sequences to where they belong."""
        which = np.arange(self._next, self._next + len(reservations))
        self._next += len(reservations)
        starts = np.array([reservation.start for reservation in reservations], np.int64)
        slots = np.array([reservation.slot for reservation in reservations], np.int64)
        lengths = self._fitting.lengths[which]
        # The rows are ours, and so is what the row map says of them.
        self._core.arrays.row_slot[rows_of(starts, lengths)] = np.repeat(slots, lengths)
        done = [column.read(starts, slots, which) for column in self._columns]
        # One batch of checksums may be under way while the next rows are read, not more: what
        # has just been read is still in the cache.
        for future in self._sums:
            future.result()
        self._sums = [self._helper.submit(_add_up, self._columns, done)]

    def _requests(self, begin: int, end: int) -> list[Request]:
        fitting = self._fitting
        return [
            Request(*needs, False)
            for needs in zip(
                self._content.identities[begin:end].tolist(),
                fitting.lengths[begin:end].tolist(),
                fitting.spans[begin:end].tolist(),
                fitting.extras[begin:end],
                strict=True,
            )
        ]

    def _check_apart(self) -> None:
        """Check what will not be read from first to last on the way into the table."""
        whole = self._fitting.first == 0
        used = set()
        for column in self._columns:
            if column.part is not None:
                used.add(column.part.column.name)
                column.follow(whole)
        for name, part in self._content.parts.items():
            if name not in used:
                part.rows.check()


def _add_up(columns: list[_Column], done: list[list[memoryview]]) -> None:
    for column, views in zip(columns, done, strict=True):
        column.add_up(views)


class _Column:
    """One column on its way from the file into the table.

    Args:
        storage: of the table.
        column: of the table.
        part: of the file; None if it has none, then the rows become zeros.
        counts: int64 [n], rows taken of each of the file's sequences.
        tag: whether rows lie at slots.
    """

    def __init__(
        self,
        storage: CpuStorage | DeviceStorage,
        column: Column,
        part: Part | None,
        counts: Int64Array,
        tag: bool,
    ) -> None:
        self.row_bytes = column.row_bytes
        self._storage = storage
        self._name = column.name
        self.part = part
        self.counts = counts
        self._tag = tag
        self._crc: int | None = None

    def follow(self, whole: bool) -> None:
        """Compute the checksum on the way if all rows come by, in order; else check it now."""
        part = self.part
        if part is None:
            return
        in_order = np.array_equal(part.starts, np.cumsum(part.counts) - part.counts)
        if whole and in_order and np.array_equal(part.counts, self.counts):
            self._crc = part.rows.head_crc
        else:
            part.rows.check()

    def read(self, starts: Int64Array, slots: Int64Array, which: Int64Array) -> list[memoryview]:
        """Read the rows of some sequences to where they belong; returns the memory."""
        counts = self.counts[which]
        places = slots if self._tag else starts
        if self.part is None:
            with self._storage.filling(self._name, places, counts) as targets:
                for target in targets:
                    np.frombuffer(target, np.uint8)[:] = 0
            return targets
        firsts = self.part.starts[which]
        breaks = np.flatnonzero(firsts[1:] != firsts[:-1] + counts[:-1]) + 1
        edges = [0, *breaks.tolist(), len(firsts)]
        done: list[memoryview] = []
        for begin, end in zip(edges, edges[1:], strict=False):
            run = slice(begin, end)
            with self._storage.filling(self._name, places[run], counts[run]) as targets:
                self.part.rows.read_into(int(firsts[begin]), targets)
            done += targets
        return done

    def add_up(self, views: list[memoryview]) -> None:
        """Go on with the checksum."""
        if self._crc is not None:
            crc = self._crc
            for view in views:
                crc = zlib.crc32(view, crc)
            self._crc = crc

    def compare(self) -> None:
        """Raise FileDamagedError unless the checksum is right."""
        if self._crc is not None and self.part is not None:
            self.part.rows.compare(self._crc)
