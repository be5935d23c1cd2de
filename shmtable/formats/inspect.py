"""A file by itself, without a table: is it sound, what is in it, and the same as V1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shmtable.formats.archive_writer import ArchiveWriter
from shmtable.formats.atomic import replacing
from shmtable.formats.base import (
    PIECE_BYTES,
    Content,
    FileColumn,
    Part,
    Progress,
    TableSerializationVersion,
)
from shmtable.formats.files import opened
from shmtable.formats.v1_writer import Summary, V1Writer
from shmtable.types import Int64Array


@dataclass(frozen=True, eq=False)
class Description:
    """What a file holds.

    Attributes:
        path, version: of the file.
        columns: in declared order.
        length_key, maxlen: of the table that was stored.
        sampler, ejector: names of their classes.
        sequences, transitions: how many.
        lengths: (from, to, sequences) for each power of two that occurs, both ends included.
        data_bytes: of all rows.
        file_bytes: of the file.
    """

    path: str
    version: TableSerializationVersion
    columns: tuple[FileColumn, ...]
    length_key: str
    maxlen: int
    sampler: str
    ejector: str
    sequences: int
    transitions: int
    lengths: tuple[tuple[int, int, int], ...]
    data_bytes: int
    file_bytes: int


def verify(
    path: str,
    override_version: TableSerializationVersion | None = None,
    *,
    progress: Progress | None = None,
) -> Description:
    """Check everything in a file, to the last byte.

    Args:
        path: of the file itself, with its suffix.
        override_version: read it as this version.
        progress: called now and then as ``progress(done, total)``, in bytes.

    Raises:
        TableFileError: of some kind.
    """
    with opened(path, override_version) as content:
        content.check(progress)
        return _described(content)


def describe(path: str, override_version: TableSerializationVersion | None = None) -> Description:
    """Like ``verify``, without reading the rows."""
    with opened(path, override_version) as content:
        return _described(content)


def convert(
    source: str,
    target: str,
    override_version: TableSerializationVersion | None = None,
    *,
    progress: Progress | None = None,
) -> None:
    """Write a file again as V1, without a table.

    Args:
        source, target: paths with their suffix; they may be the same.
        override_version: read the source as this version.
        progress: called now and then as ``progress(done, total)``, in bytes.

    Raises:
        TableFileError: the source cannot be read.
        OSError: the target cannot be written; what was there is as it was.
    """
    with opened(source, override_version) as content:
        content.check()
        most_rows = {name: part.rows.count for name, part in content.parts.items()}
        total = sum(part.rows.count * part.rows.row_bytes for part in content.parts.values())
        done = 0
        with replacing(target) as descriptor:
            out = ArchiveWriter(descriptor)
            writer = V1Writer(out, content.columns, content.length_key, content.maxlen, most_rows)
            for name, part in content.parts.items():
                for piece in _in_order(part):
                    column = writer.columns[name]
                    column.write(piece)
                    done += len(piece)
                    if progress is not None:
                        progress(done, total)
            writer.finish(_summary(content))


def _in_order(part: Part) -> Iterator[memoryview]:
    """The rows of all sequences, in the file's order of sequences."""
    if np.array_equal(part.starts, np.cumsum(part.counts) - part.counts):
        yield from part.rows.pieces()
        return
    for start, count in zip(part.starts.tolist(), part.counts.tolist(), strict=True):
        step = max(PIECE_BYTES // part.rows.row_bytes, 1)
        for first in range(start, start + count, step):
            rows = min(step, start + count - first)
            piece = memoryview(bytearray(rows * part.rows.row_bytes))
            part.rows.read_into(first, [piece])
            yield piece


def _summary(content: Content) -> Summary:
    count = len(content.identities)
    times = content.times_sampled
    return Summary(
        content.identities,
        content.row_counts,
        np.arange(count),
        np.zeros(count, np.int64) if times is None else times,
        {name: part.counts for name, part in content.parts.items()},
        content.strategies,
        content.random,
    )


def _described(content: Content) -> Description:
    lengths = content.row_counts
    return Description(
        content.path,
        content.version,
        content.columns,
        content.length_key,
        content.maxlen,
        content.strategies["sampler"].type,
        content.strategies["ejector"].type,
        len(lengths),
        int(lengths.sum()),
        _histogram(lengths),
        sum(part.rows.count * part.rows.row_bytes for part in content.parts.values()),
        os.stat(content.path).st_size,
    )


def _histogram(lengths: Int64Array) -> tuple[tuple[int, int, int], ...]:
    powers, counts = np.unique(np.frexp(lengths.astype(np.float64))[1] - 1, return_counts=True)
    return tuple(
        (1 << power, (2 << power) - 1, count)
        for power, count in zip(powers.tolist(), counts.tolist(), strict=True)
    )
