"""Writing Legacy: pickles made by hand, since the classes that they name are another system's.

Instructions as documented by Python's ``pickletools``; no memo is needed, for nothing refers back.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shmtable.errors import TableFileError
from shmtable.formats.archive_writer import ArchiveWriter, MemberWriter
from shmtable.formats.base import FileColumn

_BEGIN, _STOP, _MARK = b"\x80\x04", b".", b"("
_PACKAGE = "emote.memory"
_MODULES = {
    "UniformSampleStrategy": "uniform_strategy",
    "UniformEjectionStrategy": "uniform_strategy",
    "FifoSampleStrategy": "fifo_strategy",
    "FifoEjectionStrategy": "fifo_strategy",
}
#: The header of an array that holds one object: version 1.0, padded to 128 bytes.
_OBJECT_HEADER = (
    b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117)
) + b"\n"
#: More than the instructions around one sequence's bytes take.
SEQUENCE_BYTES = 400


class LegacyWriter:
    """A Legacy file being written: each column's rows first, what is known of them last.

    Args:
        out: an archive without members.
        columns: in declared order.
        strategies: class names by role.
    """

    def __init__(
        self, out: ArchiveWriter, columns: Sequence[FileColumn], strategies: Mapping[str, str]
    ) -> None:
        for role, name in strategies.items():
            if name not in _MODULES:
                raise TableFileError(
                    f"the {role} is {name}, which the Legacy format does not know "
                    f"({', '.join(_MODULES)}); store the table as V1",
                    role=role,
                )
        self._out = out
        self._columns = columns
        self._strategies = strategies

    def column(
        self,
        column: FileColumn,
        sequences: Iterable[tuple[int, Sequence[memoryview], int]],
        most_bytes: int,
    ) -> None:
        """Write one stored column or tag.

        Args:
            column: which.
            sequences: identity, the rows' bytes, and how many rows.
            most_bytes: of all of them, with ``SEQUENCE_BYTES`` for each.
        """
        if not column.dtype.exact_numpy:
            raise TableFileError(
                f"column '{column.name}' is {column.dtype}, which numpy and so the Legacy format "
                "do not have; store the table as V1",
                column=column.name,
            )
        most = len(_OBJECT_HEADER) + 2 * SEQUENCE_BYTES + most_bytes
        member = self._out.member(f"{column.name}.npy", most)
        kind = "TagStorage" if column.kind == "TagColumn" else "BaseStorage"
        storage = _name(f"{_PACKAGE}.storage", kind) + b")\x81"
        member.append(_OBJECT_HEADER + _BEGIN + _RECONSTRUCT + _MARK + b"K\x01)")
        member.append(_dtype("O8", "|") + b"\x89]" + storage + _MARK)
        for identity, rows, count in sequences:
            self._sequence(member, column, identity, rows, count)
        # Into the storage; that into the list; that, with the mark's tuple, into the array.
        member.append(b"ua" + b"tb" + _STOP)

    @staticmethod
    def _sequence(
        member: MemberWriter,
        column: FileColumn,
        identity: int,
        rows: Sequence[memoryview],
        count: int,
    ) -> None:
        descr = column.dtype.numpy.str
        shape = (count, *column.shape)
        size = sum(map(len, rows))
        head = _value(identity) + _RECONSTRUCT + _MARK + b"K\x01" + _value(shape)
        head += _dtype(descr[1:], descr[0]) + b"\x89" + b"\x8e" + struct.pack("<Q", size)
        member.append(head)
        for view in rows:
            member.append(view)
        member.append(b"tb")

    def finish(self, length_key: str, maxlen: int, lengths: Mapping[int, int], full: bool) -> None:
        """Write the rest, and the archive's directory."""
        tracked = dict(lengths)
        parts: list[tuple[str, bytes]] = []
        for role, name in self._strategies.items():
            if name.startswith("Fifo"):
                ids = _name("collections", "deque") + b")R" + _MARK
                ids += b"".join(map(_value, tracked)) + b"e"
                state = {"_in_simple_import": False, "_sequence_lengths": tracked}
                body = _items(state) + _value("_identities") + ids
            else:
                body = _items(
                    {
                        "_in_simple_import": False,
                        "_identities": tracked,
                        "_ids": [],
                        "_prios": [],
                        "_dirty": True,
                    }
                )
            made = _name(f"{_PACKAGE}.{_MODULES[name]}", name) + b")\x81"
            parts.append((role, made + b"}" + _MARK + body + b"ub"))
        parts.append(("length_key", _value(length_key)))
        parts.append(("maxlen", _value(maxlen)))
        columns = b"".join(_value(column.name) + _column(column) for column in self._columns)
        parts.append(("columns", b"}" + _MARK + columns + b"u"))
        parts.append(("lengths", _value(tracked)))
        parts.append(("filled", _value(full)))
        body = b"".join(_value(key) + value for key, value in parts)
        self._out.add("data.pickle", _BEGIN + b"}" + _MARK + body + b"u" + _STOP)
        self._out.finish(first=("data.pickle",))


def _column(column: FileColumn) -> bytes:
    made = _name(f"{_PACKAGE}.column", column.kind) + b")\x81"
    dtype = column.dtype.name
    # numpy 2 and 1 name this one alone differently.
    known = _name("builtins", "bool") if dtype == "bool" else _name("numpy", dtype)
    state = _items({"name": column.name, "shape": column.shape}) + _value("dtype") + known
    if column.target_name is not None:
        state += _items({"target_name": column.target_name})
        state += _value("mapper") + _mapper(column)
    return made + b"}" + _MARK + state + b"ub"


def _mapper(column: FileColumn) -> bytes:
    if column.mapper is None:
        raise TableFileError(
            f"column '{column.name}': its mapper is not one of the Legacy format's; store the "
            "table as V1",
            column=column.name,
        )
    return _name(f"{_PACKAGE}.storage", column.mapper)


def _value(value: Any) -> bytes:
    """The instructions that make a plain value."""
    if value is True or value is False:
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        size = (value.bit_length() + 8) // 8
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
    if isinstance(value, str):
        text = value.encode()
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, tuple):
        return _MARK + b"".join(map(_value, value)) + b"t"
    if isinstance(value, list):
        return b"]" + _MARK + b"".join(map(_value, value)) + b"e"
    return b"}" + _MARK + _items(value) + b"u"


def _items(values: Mapping[Any, Any]) -> bytes:
    return b"".join(_value(key) + _value(value) for key, value in values.items())


def _name(module: str, name: str) -> bytes:
    return _value(module) + _value(name) + b"\x93"


def _dtype(name: str, order: str) -> bytes:
    made = _name("numpy", "dtype") + _MARK + _value(name) + b"\x89\x88tR"
    flags = 63 if name == "O8" else 0
    state = _value(3) + _value(order) + b"NNN" + _value(-1) + _value(-1) + _value(flags)
    return made + _MARK + state + b"tb"


_RECONSTRUCT = (
    _name("numpy.core.multiarray", "_reconstruct")
    + _name("numpy", "ndarray")
    + _value((0,))
    + b"C\x01b\x87R"
)
