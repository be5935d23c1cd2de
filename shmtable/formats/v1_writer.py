"""Writing V1: one array per column with all sequences' rows, and one that says whose they are.

The layout is described for readers in the documentation, page "File format".
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.errors import TableFileError
from shmtable.formats import npy
from shmtable.formats.archive_writer import ArchiveWriter, MemberWriter
from shmtable.formats.base import FileColumn, Strategy
from shmtable.formats.crc import joined
from shmtable.types import Int64Array

EXTRAS_FORMAT = 1
SEQUENCES = "shmtable.sequences"
EXTRAS = "shmtable.json"
#: Strategies that keep no state here, and of which other readers of V1 expect this one.
_FIFO = ("FifoEjectionStrategy", "FifoSampleStrategy")


@dataclass(frozen=True, eq=False)
class Summary:
    """What is said of the sequences once all rows are written.

    Attributes:
        identities, lengths, orders, times_sampled: int64 [n], oldest first.
        counts: by column, int64 [n], rows of each sequence.
        strategies: by role.
        random: state of this process's generator, in types that JSON knows.
    """

    identities: Int64Array
    lengths: Int64Array
    orders: Int64Array
    times_sampled: Int64Array
    counts: Mapping[str, Int64Array]
    strategies: Mapping[str, Strategy]
    random: Any = None


class ColumnWriter:
    """One column's rows: ``write``, or ``member.write`` at ``end`` and then ``count_in``.

    Attributes:
        member: of the archive.
        crc: CRC-32 of the rows counted in, without the header.
    """

    def __init__(self, out: ArchiveWriter, column: FileColumn, most_rows: int) -> None:
        self._column = column
        self._head_bytes = len(npy.header(column.dtype.numpy, (most_rows, *column.shape)))
        most_bytes = self._head_bytes + most_rows * column.row_bytes
        self.member: MemberWriter = out.member(f"{column.name}.npy", most_bytes)
        self.crc = 0
        self._bytes = 0

    @property
    def end(self) -> int:
        """Where in the member the next rows belong."""
        return self._head_bytes + self._bytes

    def write(self, rows: memoryview) -> None:
        """Write rows at the end, and count them in."""
        size = self.member.write([rows], self.end)
        self.count_in(size, zlib.crc32(rows, self.crc))

    def count_in(self, row_bytes: int, crc: int) -> None:
        """So many bytes at ``end`` are rows; ``crc`` is that of all rows up to there."""
        self._bytes += row_bytes
        self.crc = crc

    def finish(self) -> None:
        """Write the header, which says how many rows there are."""
        column = self._column
        rows = self._bytes // column.row_bytes
        head = npy.header(column.dtype.numpy, (rows, *column.shape), self._head_bytes)
        self.member.append(head)
        self.member.crc = joined(self.member.crc, self.crc, self._bytes)
        self.member.size += self._bytes


class V1Writer:
    """A V1 file being written.

    Args:
        out: an archive without members.
        columns: in declared order.
        length_key, maxlen: as of the table.
        most_rows: by name, for each stored column and tag, the most rows that may come.

    Attributes:
        columns: where rows go, by name.

    Raises:
        TableFileError: a column's name cannot be a member's, or two make the same member.
    """

    def __init__(
        self,
        out: ArchiveWriter,
        columns: Sequence[FileColumn],
        length_key: str,
        maxlen: int,
        most_rows: Mapping[str, int],
    ) -> None:
        self._out = out
        self._declared = columns
        self._length_key = length_key
        self._maxlen = maxlen
        _refuse_names([column.name for column in columns if column.name in most_rows])
        self.columns = {
            column.name: ColumnWriter(out, column, most_rows[column.name])
            for column in columns
            if column.name in most_rows
        }

    def finish(self, summary: Summary) -> None:
        """Write everything that is known only now, and the archive's directory."""
        for writer in self.columns.values():
            writer.finish()
        for name in self.columns:
            counts = summary.counts[name]
            starts = np.cumsum(counts) - counts
            ranges = np.stack([summary.identities, starts, counts], axis=1)
            self._array(f"{name}.ranges", ranges)
        self._out.add("configuration.json", _json(self._configuration(summary)))
        self._extras(summary)
        self._out.add("version", b"1")
        self._out.finish(first=("version", "configuration.json"))

    def _configuration(self, summary: Summary) -> dict[str, Any]:
        ejector, sampler = summary.strategies["ejector"], summary.strategies["sampler"]
        parts: dict[str, Any] = {
            "ejector_type": ejector.type,
            "sampler_type": sampler.type,
            "length_key": self._length_key,
            "maxlen": self._maxlen,
            "ids": summary.identities.tolist(),
        }
        for role, strategy in summary.strategies.items():
            state = strategy.state
            if state is None and strategy.type in _FIFO:
                pairs = np.stack([summary.identities, summary.lengths], axis=1)
                state = {"identities": parts["ids"], "sequence_lengths": pairs.tolist()}
            if state is not None:
                parts[f"{role}_state"] = state
        parts["columns"] = [_declared(column) for column in self._declared]
        parts["part_keys"] = list(self.columns)
        return parts

    def _extras(self, summary: Summary) -> None:
        arrays = []
        for role, strategy in summary.strategies.items():
            for name, array in strategy.arrays.items():
                arrays.append([role, name])
                self._array(f"shmtable.{role}.{name}", array)
        numbers = np.stack([summary.orders, summary.times_sampled], axis=1)
        self._array(SEQUENCES, numbers)
        extras = {"format": EXTRAS_FORMAT, "arrays": arrays, "random": summary.random}
        self._out.add(EXTRAS, _json(extras))

    def _array(self, name: str, array: npt.NDArray[Any]) -> None:
        array = np.ascontiguousarray(array)
        head = npy.header(array.dtype, array.shape)
        member = self._out.member(f"{name}.npy", len(head) + array.nbytes)
        member.append(head)
        if array.size:
            member.append(array.data.cast("B"))


def _declared(column: FileColumn) -> tuple[str, str, dict[str, Any]]:
    state: dict[str, Any] = {"shape": list(column.shape), "dtype": column.dtype.name}
    if column.target_name is not None:
        state["target_name"] = column.target_name
    return column.name, column.kind, state


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError) as error:
        raise TableFileError(
            f"a strategy's state() cannot be written ({error}); it may hold what JSON knows: "
            "dict, list, str, int, float, bool and None"
        ) from error


def _refuse_names(names: Sequence[str]) -> None:
    """Refuse columns whose members could not be told from others, or from paths."""
    members: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        if "\\" in name or ":" in parts[0] or {"", ".", ".."} & set(parts):
            raise TableFileError(
                f"column '{name}': a file's members are named after the columns, and this one "
                "would look like a path out of the file; rename the column",
                column=name,
            )
        for member in (f"{name}.npy", f"{name}.ranges.npy"):
            if member in members or member.startswith("shmtable."):
                other = members.get(member, "what shmtable itself keeps there")
                raise TableFileError(
                    f"column '{name}': its member {member!r} of the file would clash with "
                    f"'{other}'; rename the column",
                    column=name,
                )
            members[member] = name
