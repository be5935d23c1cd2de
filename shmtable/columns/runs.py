"""Runs of consecutive rows, given by their first rows and their lengths."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shmtable.types import Int64Array


def merged(starts: Int64Array, counts: Int64Array) -> tuple[Int64Array, Int64Array]:
    """The same rows in the same order, in fewer runs: one for all that follow on each other.

    Args:
        starts: int64 [n], first row of each.
        counts: int64 [n], rows of each, at least 1.

    Returns:
        starts and counts, int64 [k] each, k <= n.
    """
    if not len(starts):
        return starts, counts
    firsts = np.append(0, np.flatnonzero(starts[1:] != starts[:-1] + counts[:-1]) + 1)
    return starts[firsts], np.add.reduceat(counts, firsts)


def each_run(starts: Int64Array, counts: Int64Array) -> Iterator[tuple[slice, slice]]:
    """For each run of rows: its place among all of them, and where it lies."""
    done = 0
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        yield slice(done, done + count), slice(start, start + count)
        done += count
