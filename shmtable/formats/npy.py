"""The header of an array's member (numpy's ``.npy`` format), written and believed to the letter.

Reading goes no further than the header: no object is ever made from a file's bytes.
"""

from __future__ import annotations

import ast
import struct
from typing import Any

import numpy as np

from shmtable.errors import FileDamagedError, FileUnsafeError

MAGIC = b"\x93NUMPY"
#: No header that numpy writes for an array of plain numbers is longer.
MOST_HEADER_BYTES = 1 << 14
_ALIGNMENT = 64


def header(dtype: np.dtype[Any], shape: tuple[int, ...], size: int | None = None) -> bytes:
    """The bytes before an array's data: format 1.0, row-major.

    Args:
        dtype: of the elements.
        shape: of the array.
        size: fill up to so many bytes, a multiple of 64 that is large enough.
    """
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    least = len(MAGIC) + 4 + len(text) + 1
    total = -(-least // _ALIGNMENT) * _ALIGNMENT if size is None else size
    padded = text.ljust(total - len(MAGIC) - 5) + "\n"
    return MAGIC + b"\x01\x00" + struct.pack("<H", len(padded)) + padded.encode("ascii")


def skip_objects(start: bytes, where: str) -> int:
    """How long the header of an array of objects is, whose pickle follows.

    Raises:
        FileDamagedError: it is none.
    """
    dtype, shape, end = _fields(start, where)
    if not dtype.hasobject or shape:
        raise FileDamagedError(f"{where}: holds {dtype} of shape {shape}, it must hold one object")
    return end


def parse(start: bytes, where: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Read the header of an array of numbers.

    Args:
        start: the member's first bytes, up to ``MOST_HEADER_BYTES``.
        where: file and member, for messages.

    Returns:
        The elements' dtype, the shape, and how long the header is.

    Raises:
        FileDamagedError: it is none.
        FileUnsafeError: the elements are Python objects.
    """
    dtype, shape, end = _fields(start, where)
    if dtype.hasobject:
        raise FileUnsafeError(
            f"{where}: holds Python objects, which are never read; "
            "a table's columns are plain numbers"
        )
    return dtype, shape, end


def _fields(start: bytes, where: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    if start[:6] != MAGIC or len(start) < 12 or start[6] not in (1, 2, 3):
        raise FileDamagedError(f"{where}: does not begin like an array (.npy); copy the file anew")
    wide = start[6] > 1
    first = 12 if wide else 10
    (length,) = struct.unpack_from("<I" if wide else "<H", start, 8)
    if first + length > len(start):
        raise FileDamagedError(
            f"{where}: its header has {length} bytes, {len(start) - first} are there; "
            "copy the file anew"
        )
    try:
        fields = ast.literal_eval(start[first : first + length].decode("utf-8").strip())
        descr, fortran, shape = (fields[key] for key in ("descr", "fortran_order", "shape"))
        if len(fields) != 3 or type(descr) is not str or type(fortran) is not bool:
            raise ValueError("fields of other types")
        if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"shape is {shape!r}")
        dtype = np.dtype(descr)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise FileDamagedError(
            f"{where}: its array header cannot be read ({str(error)[:100]}); copy the file anew"
        ) from None
    if fortran and len(shape) > 1:
        raise FileDamagedError(f"{where}: is stored column by column; only row-major is known")
    return dtype, shape, first + length
