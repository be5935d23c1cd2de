"""cpprb: buffers in C++ for single transitions, with priorities.

Next observations are stored as a column of their own: with ``next_of`` its ``sample`` and ``add``
both were slower.
"""

from __future__ import annotations

import itertools
import multiprocessing
from importlib import metadata
from typing import Any

import cpprb
import numpy as np

from tests.bench.peers.base import (
    Arrays,
    Call,
    Cannot,
    Setup,
    Shared,
    in_turn,
    sequences,
    unrolled,
)


def versions() -> dict[str, str]:
    """See ``Peer``."""
    return {"cpprb": metadata.version("cpprb"), "numpy": np.__version__}


def environment(setup: Setup) -> dict[str, Any]:
    """The columns as cpprb wants them described."""
    layout = setup.columns
    described: dict[str, Any] = {
        name: {"shape": shape or 1, "dtype": np.dtype(dtype)}
        for name, (shape, dtype) in layout.columns.items()
    }
    if layout.follows:
        described["next_obs"] = described["obs"]
        described["dones"] = {"shape": 1, "dtype": np.dtype(bool)}
    return described


def prepared(setup: Setup, arrays: Arrays) -> Arrays:
    """As its ``add`` takes them fastest: every column with a row per step and a last axis."""
    rows = unrolled(setup.columns, arrays)
    return {name: column[:, None] if column.ndim == 1 else column for name, column in rows.items()}


class Buffer:
    """See ``Table``."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        kind = cpprb.PrioritizedReplayBuffer if setup.priorities else cpprb.ReplayBuffer
        self._buffer = kind(setup.transitions, environment(setup))
        add = self.adder(setup.steps, "arrays")
        for _ in range(setup.transitions // setup.steps):
            add()

    def sampler(self, count: int, length: int) -> Call:
        """See ``Table``."""
        if length != 1:
            raise Cannot("samples single transitions only")
        buffer = self._buffer
        return lambda: buffer.sample(count)

    def updater(self, count: int) -> Call:
        """See ``Table``."""
        buffer = self._buffer
        indexes = in_turn(lambda: buffer.sample(count)["indexes"])
        priorities = np.random.default_rng(0).random(count)
        return lambda: buffer.update_priorities(next(indexes), priorities)

    def adder(self, steps: int, form: str) -> Call:
        """See ``Table``."""
        if form != "arrays":
            raise Cannot("takes arrays; all else goes through one")
        source = sequences(self._setup, steps)
        ready = [prepared(self._setup, next(source)) for _ in range(16)]
        turn, buffer = itertools.cycle(ready), self._buffer
        return lambda: buffer.add(**next(turn))

    def close(self) -> None:
        """See ``Table``."""
        del self._buffer


def open(setup: Setup) -> Buffer:  # noqa: A001
    """See ``Peer``."""
    return Buffer(setup)


def writer(buffer: Any, number: int) -> Call:
    """Adds whole sequences."""
    setup = Setup()
    source = sequences(setup, setup.steps, seed=number)
    turn = itertools.cycle([prepared(setup, next(source)) for _ in range(16)])
    return lambda: buffer.add(**next(turn))


def share(setup: Setup) -> Shared:
    """See ``Peer``."""
    buffer = cpprb.MPReplayBuffer(
        setup.transitions, environment(setup), ctx=multiprocessing.get_context("fork")
    )
    first = writer(buffer, 99)
    for _ in range(setup.transitions // setup.steps):
        first()
    return Shared(
        "fork",
        buffer,
        writer,
        lambda: buffer.sample(256),
        remark="single transitions, one learner, writers that were forked",
    )
