"""Reading V1: every claim of the file is compared with the others before anything is used."""

from __future__ import annotations

import json
import zlib
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from shmtable.columns import Column
from shmtable.errors import FileDamagedError, SpecError
from shmtable.formats import npy
from shmtable.formats.archive import Archive
from shmtable.formats.base import (
    Content,
    FileColumn,
    Part,
    Rows,
    Strategy,
    TableSerializationVersion,
)
from shmtable.formats.ranges import match
from shmtable.formats.spool import Spool
from shmtable.formats.v1_writer import EXTRAS, EXTRAS_FORMAT, SEQUENCES
from shmtable.types import Int64Array

_CONFIGURATION = "configuration.json"
_LARGEST = 1 << 62


def read_v1(archive: Archive, spool: Spool) -> Content:
    """Check and describe a V1 file; the rows' checksums are left to whoever reads them.

    Args:
        archive: open; stays open, for the rows are read from it.
        spool: takes what is compressed.

    Raises:
        FileDamagedError: see the message.
        FileUnsafeError: an array of Python objects.
    """
    return _Reader(archive, spool).content()


class _Reader:
    def __init__(self, archive: Archive, spool: Spool) -> None:
        self._archive = archive
        self._spool = spool
        # Each sequence has a row of 24 bytes there, so these bound everything said per sequence.
        ranges = [m.size for m in archive.members.values() if m.name.endswith(".ranges.npy")]
        self._most_sequences = max(ranges, default=0) // 24 + 1
        self._read: set[str] = {"version"}

    def content(self) -> Content:
        archive = self._archive
        config = self._json(_CONFIGURATION, 1024)
        length_key, ejector, sampler = (
            self._field(config, key, str) for key in ("length_key", "ejector_type", "sampler_type")
        )
        maxlen = self._field(config, "maxlen", int)
        if not 1 <= maxlen < _LARGEST:
            self._refuse(f"maxlen is {maxlen}")
        identities = self._identities(config)
        columns = self._columns(config)
        keys = self._field(config, "part_keys", list)
        stored = [column.name for column in columns if column.kind != "VirtualColumn"]
        if not all(type(key) is str for key in keys) or sorted(keys) != sorted(stored):
            self._refuse(f"part_keys is {str(keys)[:200]}, the stored columns are {stored}")
        if length_key not in keys or self._kind(columns, length_key) != "Column":
            self._refuse(f"length_key is {length_key!r}, which is no stored column")
        parts = {c.name: self._part(c, identities) for c in columns if c.name in keys}
        times, random, arrays = self._extras(parts[length_key], len(identities))
        strategies = {
            role: Strategy(kind, config.get(f"{role}_state"), arrays.get(role, {}))
            for role, kind in (("sampler", sampler), ("ejector", ejector))
        }
        for name in archive.members:
            if name not in self._read:  # of somebody else: not used, but damage shows here too
                self._rows_of(name, 1, archive.member(name).size, 0).check()
        return Content(
            archive.path,
            TableSerializationVersion.V1,
            columns,
            length_key,
            maxlen,
            identities,
            parts,
            strategies,
            times,
            random,
        )

    # -- configuration -------------------------------------------------------------------------

    def _json(self, name: str, per_sequence: int) -> Any:
        most = (1 << 20) + per_sequence * self._most_sequences
        self._read.add(name)
        data = self._archive.read(name, most)
        try:
            found = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            self._refuse(f"is no JSON ({str(error)[:100]})", name)
        if not isinstance(found, dict):
            self._refuse("is no JSON object", name)
        return found

    def _field(self, config: dict[str, Any], key: str, kind: type) -> Any:
        value = config.get(key)
        if type(value) is not kind:
            self._refuse(f"{key} is {value!r:.100}, it must be a {kind.__name__}")
        return value

    def _identities(self, config: dict[str, Any]) -> Int64Array:
        values = self._field(config, "ids", list)
        if any(type(value) is not int or not -(2**63) <= value < 2**63 for value in values):
            self._refuse("ids holds something else than integers of 64 bits")
        identities: Int64Array = np.array(values, np.int64)
        if len(np.unique(identities)) != len(identities):
            self._refuse("ids names an identity twice")
        return identities

    def _columns(self, config: dict[str, Any]) -> tuple[FileColumn, ...]:
        columns = []
        for entry in self._field(config, "columns", list):
            try:
                name, kind, state = entry
                target, shape = state.get("target_name"), state["shape"]
                if type(kind) is not str or type(target) not in (str, type(None)):
                    raise TypeError("its class or target is no name")
                if type(shape) is not list or not all(type(size) is int for size in shape):
                    raise TypeError("its shape is no list of integers")
                column = Column(name, shape, state["dtype"])
            except (TypeError, ValueError, KeyError, AttributeError, SpecError) as error:
                self._refuse(f"column {str(entry)[:100]} is none ({error})")
            # Classes of a program's own count as what they are derived from.
            if kind not in ("Column", "TagColumn", "VirtualColumn"):
                kind = "Column" if target is None else "VirtualColumn"
            columns.append(FileColumn(name, kind, column.shape, column.dtype, target))
        if len({column.name for column in columns}) != len(columns):
            self._refuse("columns declares a name twice")
        return tuple(columns)

    @staticmethod
    def _kind(columns: tuple[FileColumn, ...], name: str) -> str:
        return next((column.kind for column in columns if column.name == name), "")

    # -- arrays --------------------------------------------------------------------------------

    def _part(self, column: FileColumn, identities: Int64Array) -> Part:
        ranges = self._array(f"{column.name}.ranges.npy")
        name = f"{column.name}.npy"
        where = self._archive.where(name)
        head = self._archive.peek(name, npy.MOST_HEADER_BYTES)
        dtype, shape, head_bytes = npy.parse(head, where)
        if dtype != column.dtype.numpy or shape[1:] != column.shape or not shape:
            self._refuse(
                f"holds {dtype} of shape {shape}, the configuration declares {column.dtype} rows "
                f"of shape {column.shape}",
                name,
            )
        # Not in numpy: its products wrap around.
        size = head_bytes + shape[0] * column.row_bytes
        if size != self._archive.member(name).size:
            self._refuse(f"has {self._archive.member(name).size} bytes, {size} are claimed", name)
        starts, counts = match(ranges, identities, shape[0], self._archive.where(name))
        rows = self._rows_of(name, column.row_bytes, shape[0], head_bytes)
        return Part(column, rows, starts, counts)

    def _rows_of(self, name: str, row_bytes: int, count: int, head_bytes: int) -> Rows:
        self._read.add(name)
        member, archive = self._archive.member(name), self._archive
        if member.method:
            descriptor, offset = self._spool.inflate(archive, member)
            crc = None  # compared on the way
        else:
            descriptor, offset, crc = archive.descriptor, member.offset, member.crc
        head_crc = zlib.crc32(archive.peek(name, head_bytes))
        where = archive.where(name)
        return Rows(where, descriptor, offset + head_bytes, count, row_bytes, crc, head_crc)

    def _array(self, name: str, dtype: str | None = "i", items: int = 1) -> npt.NDArray[Any]:
        """A member that is read whole: at most 64 bytes for each of ``items`` or sequence."""
        self._read.add(name)
        most = npy.MOST_HEADER_BYTES + 64 * max(items, self._most_sequences)
        data = self._archive.read(name, most)
        found, shape, head_bytes = npy.parse(
            data[: npy.MOST_HEADER_BYTES], self._archive.where(name)
        )
        count = int(np.prod(shape, dtype=object))
        if len(data) != head_bytes + count * found.itemsize:
            self._refuse(f"has {len(data)} bytes for {count} elements of {found}", name)
        if dtype is not None and found.kind != dtype:
            self._refuse(f"holds {found}, it must hold integers", name)
        array: npt.NDArray[Any] = np.frombuffer(data, found, count, head_bytes).reshape(shape)
        return array if dtype is None else array.astype(np.int64)

    # -- what shmtable adds --------------------------------------------------------------------

    def _extras(
        self, lengths: Part, sequences: int
    ) -> tuple[Int64Array | None, Any, dict[str, dict[str, npt.NDArray[Any]]]]:
        """Times sampled, random state, and the strategies' arrays."""
        if EXTRAS not in self._archive.members:
            return None, None, {}
        extras = self._json(EXTRAS, 0)
        number = self._field(extras, "format", int)
        if number > EXTRAS_FORMAT:  # written by a later version: the rest is V1 all the same
            return None, None, {}
        numbers = self._array(f"{SEQUENCES}.npy")
        if numbers.shape != (sequences, 2) or (numbers < 0).any():
            self._refuse(f"has shape {numbers.shape}, or negative numbers", f"{SEQUENCES}.npy")
        arrays: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for entry in self._field(extras, "arrays", list):
            if type(entry) is not list or [type(part) for part in entry] != [str, str]:
                self._refuse(f"names the array {str(entry)[:100]}", EXTRAS)
            role, name = entry
            member = f"shmtable.{role}.{name}.npy"
            # Per sequence or per transition, which only the strategy knows: see restoring.
            arrays.setdefault(role, {})[name] = self._array(member, None, lengths.rows.count)
        return numbers[:, 1], extras.get("random"), arrays

    def _refuse(self, what: str, member: str = _CONFIGURATION) -> NoReturn:
        raise FileDamagedError(
            f"{self._archive.where(member)}: {what}; copy the file anew, or restore an older one",
            path=self._archive.path,
            member=member,
        )
