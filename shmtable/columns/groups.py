"""Which columns share a row in memory.

A sample reads every column of a transition. Small columns that lie side by side cost it one copy,
and one miss of the cache, for all of them together; the samples' columns are views of that copy.
Large columns, whose copying is all that counts, stay by themselves, in one piece each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shmtable.columns.spec import Column

# Above so many bytes a row is worth a copy of its own.
_MOST_BYTES = 256
# At most one byte in so many may be there for alignment only.
_PADDING_SHARE = 8


class Place(NamedTuple):
    """Where a column's rows lie.

    ``region`` names the memory, after the first column in it; a row there takes ``stride`` bytes,
    the column's part of it begins ``offset`` bytes from the row's start. ``apart``: nothing else
    is in the region.
    """

    region: str
    offset: int
    stride: int
    apart: bool


def places_of(stored: Sequence[Column], look_ahead: Mapping[str, int]) -> dict[str, Place]:
    """Where the rows of each stored column lie.

    Args:
        stored: the columns with one row per transition.
        look_ahead: for each, the rows it needs beyond a sequence's length: those that have any
            are read twice, once as they are and once later.
    """
    small = [column for column in stored if _is_small(column)]
    ahead = [column for column in small if look_ahead[column.name]]
    groups = [small]
    if 2 * _bytes(ahead) < _bytes(small):
        # The second reading would be of other columns mostly.
        groups = [ahead, [column for column in small if not look_ahead[column.name]]]
    found: dict[str, Place] = {}
    for group in groups:
        _place(group, found)
    return {
        column.name: found.get(column.name) or Place(column.name, 0, column.row_bytes, True)
        for column in stored
    }


def _is_small(column: Column) -> bool:
    # Of a column that is read once per window, its neighbours' rows would be read in vain.
    return not column.first_only and column.row_bytes <= _MOST_BYTES


def _bytes(columns: Sequence[Column]) -> int:
    return sum(column.row_bytes for column in columns)


def _place(group: list[Column], found: dict[str, Place]) -> None:
    """Lay columns side by side: the widest elements first, so that all are aligned."""
    group = sorted(group, key=lambda column: -column.dtype.itemsize)
    while len(group) > 1:
        item, total = group[0].dtype.itemsize, _bytes(group)
        stride = -(-total // item) * item
        if (stride - total) * _PADDING_SHARE <= stride:
            offset = 0
            for column in group:
                found[column.name] = Place(group[0].name, offset, stride, False)
                offset += column.row_bytes
            return
        group.pop()
