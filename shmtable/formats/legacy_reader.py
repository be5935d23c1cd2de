"""Reading Legacy, the pickled predecessor of V1.

Its arrays are pickled sequence by sequence, so they are unpickled one column at a time and laid
out on disk like those of V1: what follows need not know the difference.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
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
from shmtable.formats.spool import Spool
from shmtable.formats.unpickle import ArrayStandIn, Named, Storage, unpickled
from shmtable.types import Int64Array

_DATA = "data.pickle"
_MOST_BYTES = 1 << 40  # of a member; compressed ones are bounded by what they unpack from


def read_legacy(archive: Archive, spool: Spool) -> Content:
    """Check a Legacy file and lay its rows out in ``spool``.

    As the system that wrote it does, identity k becomes -k - 1, and negative ones, which were
    read from an earlier file, are left out.

    Args:
        archive: open.
        spool: takes the rows.

    Raises:
        FileDamagedError: see the message.
        FileUnsafeError: it names something that is never executed here.
    """
    warnings.warn(
        f"{archive.path} is in the Legacy format, which is deprecated; store the table again, "
        "or run 'shmtable file convert'",
        DeprecationWarning,
        stacklevel=6,  # whoever called restore() of the table
    )
    return _Reader(archive, spool).content()


class _Reader:
    def __init__(self, archive: Archive, spool: Spool) -> None:
        self._archive = archive
        self._spool = spool

    def content(self) -> Content:
        parts = unpickled(self._archive.read(_DATA, _MOST_BYTES), self._archive.where(_DATA))
        if type(parts) is not dict:
            self._refuse(_DATA, "is no dict")
        length_key, maxlen = parts.get("length_key"), parts.get("maxlen")
        lengths: Any = parts.get("lengths")
        if type(maxlen) is not int or not 1 <= maxlen < 1 << 62:
            self._refuse(_DATA, f"maxlen is {maxlen!r:.100}")
        names = self._identities(lengths)
        columns = self._columns(parts.get("columns"))
        stored = {c.name: c for c in columns if c.kind != "VirtualColumn"}
        if type(length_key) is not str or getattr(stored.get(length_key), "kind", "") != "Column":
            self._refuse(_DATA, f"length_key is {length_key!r:.100}, which is no stored column")
        strategies = {
            role: Strategy(self._named(parts.get(role), role)) for role in ("sampler", "ejector")
        }
        identities = -np.array(names, np.int64) - 1
        found = {name: self._part(column, names) for name, column in stored.items()}
        counts = found[length_key].counts.tolist()
        if counts != [lengths[name] for name in names]:
            self._refuse(_DATA, f"lengths differ from the rows of {length_key!r}")
        return Content(
            self._archive.path,
            TableSerializationVersion.Legacy,
            columns,
            length_key,
            maxlen,
            identities,
            found,
            strategies,
        )

    def _identities(self, lengths: Any) -> list[int]:
        """Those that are kept, oldest first."""
        if type(lengths) is not dict or not all(
            type(key) is int and -(2**63) <= key < 2**63 and type(length) is int
            for key, length in lengths.items()
        ):
            self._refuse(_DATA, "lengths is no dict of integers")
        kept = [key for key in lengths if key >= 0]
        if len(kept) < len(lengths):
            warnings.warn(
                f"{self._archive.path}: {len(lengths) - len(kept)} of {len(lengths)} sequences "
                "have negative identities, which this format cannot hold; they are left out",
                stacklevel=8,
            )
        return kept

    def _columns(self, columns: Any) -> tuple[FileColumn, ...]:
        if type(columns) is not dict:
            self._refuse(_DATA, "columns is no dict")
        found = []
        for name, entry in columns.items():
            kind = self._named(entry, f"column {name!r:.100}")
            state = entry.state
            dtype = state.get("dtype")
            try:
                if isinstance(dtype, type) and issubclass(dtype, Named):
                    dtype = dtype.name.rstrip("_")
                elif hasattr(dtype, "dtype"):
                    dtype = dtype.dtype()
                column = Column(name, state.get("shape"), dtype)
            except (SpecError, ValueError) as error:
                self._refuse(_DATA, f"column {name!r:.100} is none ({error})")
            target = state.get("target_name")
            if type(target) not in (str, type(None)):
                self._refuse(_DATA, f"column {name!r:.100}: its target is no name")
            if kind not in ("Column", "TagColumn", "VirtualColumn"):
                self._refuse(_DATA, f"column {name!r:.100} is a {kind}")
            found.append(FileColumn(name, kind, column.shape, column.dtype, target))
        return tuple(found)

    def _named(self, value: Any, what: str) -> str:
        if not isinstance(value, Named):
            self._refuse(_DATA, f"{what} is a {type(value).__name__}")
        return value.name

    # -- rows ----------------------------------------------------------------------------------

    def _part(self, column: FileColumn, names: list[int]) -> Part:
        member = f"{column.name}.npy"
        where = self._archive.where(member)
        descriptor, offset = self._spool.place
        counts = []
        for rows in self._sequences(column, names, member):
            counts.append(len(rows))
            self._spool.write(np.ascontiguousarray(rows).data.cast("B"))
        numbers: Int64Array = np.array(counts, np.int64)
        total = int(numbers.sum())
        place = Rows(where, descriptor, offset, total, column.row_bytes, None)
        return Part(column, place, np.cumsum(numbers) - numbers, numbers)

    def _sequences(
        self, column: FileColumn, names: list[int], member: str
    ) -> Iterator[npt.NDArray[Any]]:
        storage = self._storage(member)
        for name in names:
            if name not in storage:
                self._refuse(member, f"has no sequence {name}")
            value = storage.pop(name)  # its memory is needed no more
            try:
                array = _array(value)
                if column.kind == "TagColumn" and array.shape == column.shape:
                    array = array[None]
                if array.shape[1:] != column.shape or not len(array):
                    raise ValueError(f"shape {array.shape}, declared {column.shape}")
                if not np.can_cast(array.dtype, column.dtype.numpy, "same_kind"):
                    raise ValueError(f"{array.dtype}, declared {column.dtype}")
            except (ValueError, TypeError) as error:
                self._refuse(member, f"sequence {name} cannot be taken ({error})")
            yield array.astype(column.dtype.numpy, copy=False)

    def _storage(self, member: str) -> Storage:
        data = self._archive.read(member, _MOST_BYTES)
        where = self._archive.where(member)
        array = unpickled(data[npy.skip_objects(data, where) :], where)
        try:
            (storage,) = array.items()
        except (AttributeError, TypeError, ValueError) as error:
            self._refuse(member, f"holds no storage ({error})")
        if not isinstance(storage, Storage):
            self._refuse(member, "holds no storage")
        return storage

    def _refuse(self, member: str, what: str) -> NoReturn:
        raise FileDamagedError(
            f"{self._archive.where(member)}: {what}; copy the file anew, or restore an older one",
            path=self._archive.path,
            member=member,
        )


def _array(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, ArrayStandIn):
        return value.array()
    if type(value) is list:
        return np.array([_array(item) for item in value])
    if type(value) in (int, float, bool):
        return np.array(value)
    raise ValueError(f"a {type(value).__name__}, not an array")
