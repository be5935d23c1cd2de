"""Whose rows are where: the ranges of a column, checked to leave no gap and no doubt."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from shmtable.errors import FileDamagedError
from shmtable.types import Int64Array


def match(
    ranges: Int64Array, identities: Int64Array, rows: int, where: str
) -> tuple[Int64Array, Int64Array]:
    """Find each sequence's rows.

    Args:
        ranges: int64 [n, 3]: identity, first row, how many.
        identities: int64 [n], unique, in the order wanted.
        rows: of the column.
        where: file and member, for messages.

    Returns:
        starts and counts, int64 [n] each, in the order of ``identities``.

    Raises:
        FileDamagedError: the ranges are not of these identities, or do not cover each row once.
    """
    if ranges.ndim != 2 or ranges.shape[1] != 3 or len(ranges) != len(identities):
        _refuse(where, f"ranges of shape {ranges.shape} for {len(identities)} sequences")
    by_identity = ranges[np.argsort(ranges[:, 0], kind="stable")]
    wanted = np.argsort(identities, kind="stable")
    if not np.array_equal(by_identity[:, 0], identities[wanted]):
        _refuse(where, "ranges of other identities than ids lists, or of one of them twice")
    starts, counts = by_identity[:, 1], by_identity[:, 2]
    # In this order nothing can overflow.
    if (counts < 1).any() or (counts > rows).any():
        _refuse(where, f"a sequence of no row, or of more than the {rows} there are")
    if (starts < 0).any() or (starts > rows - counts).any():
        _refuse(where, f"a sequence that reaches beyond the {rows} rows")
    by_start = np.argsort(starts, kind="stable")
    ends = starts[by_start] + counts[by_start]
    if (starts[by_start][1:] < ends[:-1]).any():
        _refuse(where, "two sequences that share rows")
    covered = int(counts.sum()) if len(counts) else 0
    if covered != rows:
        _refuse(where, f"{rows} rows of which only {covered} belong to a sequence")
    back = np.empty_like(wanted)
    back[wanted] = np.arange(len(wanted))
    return starts[back], counts[back]


def _refuse(where: str, what: str) -> NoReturn:
    raise FileDamagedError(f"{where}: has {what}; copy the file anew, or restore an older one")
