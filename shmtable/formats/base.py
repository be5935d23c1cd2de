"""What a table's file says, whatever its version: the form in which readers and writers meet.

A reader hands out a :class:`Content`: everything but the rows is in memory and checked, the rows
are described by where they lie (:class:`Rows`) and are read and checked as they are used.
"""

from __future__ import annotations

import enum
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.columns import DType
from shmtable.errors import FileDamagedError
from shmtable.types import Int64Array

# Rows are copied and checked in pieces of about this size: large enough for full speed, small
# enough to be in the cache when they are read for the second time.
PIECE_BYTES = 4 << 20

#: Called with (bytes done, bytes in all), now and then.
Progress = Callable[[int, int], None]


class TableSerializationVersion(enum.Enum):
    """The formats a table's file may have."""

    Legacy = 0
    V1 = 1
    LATEST = V1


@dataclass(frozen=True)
class FileColumn:
    """A column as a file declares it.

    Attributes:
        name: unique in the file.
        kind: "Column", "TagColumn" or "VirtualColumn".
        shape: of one row.
        dtype: of its elements.
        target_name: of a virtual column, the stored one it is computed from.
        mapper: of a virtual column, what computes it, where Legacy has a name for it; only for
            writing.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: DType
    target_name: str | None = None
    mapper: str | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@dataclass(frozen=True)
class Rows:
    """The rows of one stored column or tag, where they lie in an open file.

    Attributes:
        where: file and member, for messages.
        descriptor, offset: file and first byte of the first row; row-major, without gaps.
        count, row_bytes: how many rows, of how many bytes.
        crc, head_crc: CRC-32 of the whole member as the file states it, and of what comes in it
            before the rows; None where the rows have been checked already.
    """

    where: str
    descriptor: int
    offset: int
    count: int
    row_bytes: int
    crc: int | None
    head_crc: int = 0

    def read_into(self, first_row: int, targets: list[memoryview]) -> None:
        """Read consecutive rows into byte buffers, one after the other.

        Raises:
            FileDamagedError: the file has become shorter meanwhile.
        """
        position = self.offset + first_row * self.row_bytes
        for target in _filled(self.descriptor, position, targets):
            if not target:
                raise FileDamagedError(
                    f"{self.where}: the file was cut short while it was being read; copy it anew"
                )

    def pieces(self) -> Iterator[memoryview]:
        """All rows' bytes in pieces; each is overwritten by the next."""
        buffer = memoryview(bytearray(min(PIECE_BYTES, self.count * self.row_bytes)))
        position, end = 0, self.count * self.row_bytes
        while position < end:
            piece = buffer[: end - position]
            for got in _filled(self.descriptor, self.offset + position, [piece]):
                if not got:
                    self.refuse()
            yield piece
            position += len(piece)

    def check(self, tell: Callable[[int], None] | None = None) -> None:
        """Read all rows and compare their checksum.

        Args:
            tell: called with the number of bytes after each piece.

        Raises:
            FileDamagedError: it differs.
        """
        crc = self.head_crc
        if self.crc is not None:
            for piece in self.pieces():
                crc = zlib.crc32(piece, crc)
                if tell is not None:
                    tell(len(piece))
            self.compare(crc)

    def compare(self, crc: int) -> None:
        """Raise FileDamagedError unless ``crc`` is what the file states."""
        if self.crc is not None and crc != self.crc:
            self.refuse()

    def refuse(self) -> None:
        """Raise FileDamagedError: these are not the rows that were written."""
        raise FileDamagedError(
            f"{self.where}: the content does not have the checksum stated for it, so the file has "
            "been changed or damaged; copy it anew, or restore an older one"
        )


def _filled(descriptor: int, position: int, targets: list[memoryview]) -> Iterator[int]:
    """Fill the targets from a file, yielding the bytes of each read: 0 where the file ends."""
    for first in range(0, len(targets), 1000):  # the system takes 1024 at a time
        pending = [view for view in targets[first : first + 1000] if len(view)]
        while pending:
            got = os.preadv(descriptor, pending, position)
            yield got
            position += got
            while pending and got >= len(pending[0]):
                got -= len(pending.pop(0))
            if got:
                pending[0] = pending[0][got:]


@dataclass(frozen=True, eq=False)
class Part:
    """One stored column's or tag's share of every sequence.

    Attributes:
        column: what it is.
        rows: where all its rows lie.
        starts, counts: int64 [n], for each of the file's sequences, in the file's order, its
            first row and how many.
    """

    column: FileColumn
    rows: Rows
    starts: Int64Array
    counts: Int64Array


@dataclass(frozen=True, eq=False)
class Strategy:
    """What a file says of a sampler or ejector.

    Attributes:
        type: the class's name.
        state: what its ``state()`` returned, or None.
        arrays: by name, its shared arrays: one item per sequence, or per transition, in order.
    """

    type: str
    state: Any = None
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Content:
    """What a file says; see the module.

    Attributes:
        path: of the file.
        version: its format.
        columns: in declared order.
        length_key: the stored column whose rows say how long a sequence is.
        maxlen: of the table that was stored.
        identities: int64 [n], oldest first, unique.
        parts: stored columns and tags by name.
        strategies: by role, "sampler" and "ejector".
        times_sampled: int64 [n], or None where the file does not say.
        random: the state of the storing process's generator, or None.
    """

    path: str
    version: TableSerializationVersion
    columns: tuple[FileColumn, ...]
    length_key: str
    maxlen: int
    identities: Int64Array
    parts: dict[str, Part]
    strategies: dict[str, Strategy]
    times_sampled: Int64Array | None = None
    random: Any = None

    @property
    def row_counts(self) -> Int64Array:
        """int64 [n], rows of each sequence in the length key's column."""
        return self.parts[self.length_key].counts

    def check(self, progress: Progress | None = None) -> None:
        """Compare the checksums of all rows.

        Raises:
            FileDamagedError: one differs.
        """
        total = sum(part.rows.count * part.rows.row_bytes for part in self.parts.values())
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        for part in self.parts.values():
            part.rows.check(tell)
        if progress is not None:
            progress(total, total)
