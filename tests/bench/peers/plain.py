"""No table at all: a contiguous copy of the same bytes, from a place that is not in the cache."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch

from tests.bench.peers.base import Call, Cannot, Setup, Shared, sequences, unrolled


def versions() -> dict[str, str]:
    """See ``Peer``."""
    return {"torch": torch.__version__}


class Plain:
    """See ``Table``."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        source = unrolled(setup.columns, next(sequences(setup, setup.steps)))
        # As many rows as the table has, all of them touched.
        self._columns = [
            torch.from_numpy(rows).repeat(
                (setup.transitions // setup.steps + 1, *(1 for _ in rows.shape[1:]))
            )
            for rows in source.values()
        ]
        self._rows = len(self._columns[0])

    def _starts(self, rows: int) -> Any:
        most = max(self._rows - rows, 1)
        return itertools.cycle(np.random.default_rng(1).integers(0, most, 4096).tolist())

    def sampler(self, count: int, length: int) -> Call:
        """See ``Table``."""
        rows = count * length
        starts = self._starts(rows)
        if rows > self._rows:
            raise Cannot("fewer rows than a batch")

        def copy() -> list[torch.Tensor]:
            start = next(starts)
            return [column[start : start + rows].clone() for column in self._columns]

        return copy

    def updater(self, count: int) -> Call:
        """See ``Table``."""
        raise Cannot("keeps no priorities")

    def adder(self, steps: int, form: str) -> Call:
        """See ``Table``."""
        if form != "arrays":
            raise Cannot("copies arrays only")
        setup = self._setup
        source = sequences(setup, steps)
        # A next observation is no copy of its own: it is stored once.
        names = list(setup.columns.columns)
        targets = dict(
            zip(
                unrolled(setup.columns, next(source)),
                (c.numpy() for c in self._columns),
                strict=True,
            )
        )
        starts = itertools.cycle(range(0, self._rows - steps - 1, steps))

        def copy() -> None:
            start, rows = next(starts), next(source)
            for name in names:
                array = rows[name]
                targets[name][start : start + len(array)] = array

        return copy

    def close(self) -> None:
        """See ``Table``."""
        self._columns.clear()


def open(setup: Setup) -> Plain:  # noqa: A001
    """See ``Peer``."""
    return Plain(setup)


def share(setup: Setup) -> Shared:
    """See ``Peer``."""
    raise Cannot("is not shared")
