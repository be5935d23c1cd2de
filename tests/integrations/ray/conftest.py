"""A Ray cluster of three nodes on this machine, and tables on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shmtable import ArrayMemoryTable
from tests.tables import small_columns, small_sequence

PATIENCE_S = 90.0


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Three nodes; made once, as that takes seconds."""
    from shmtable.demo.nodes import SimulatedNodes

    with SimulatedNodes(3) as nodes:
        yield nodes


def shards_of(table: Any) -> list[ArrayMemoryTable]:
    """The shards' tables, attached by this process, as any process of their nodes does it.

    Simulated nodes share a machine, so one process can reach them all.
    """
    names = sorted(name for name, _, state, _, _ in table._states() if state == "ready")
    return [ArrayMemoryTable.attach(name) for name in names]


def fill(table: Any, lengths: list[list[int]], **options: Any) -> None:
    """Give each shard sequences of these lengths; identity 100 * shard + number."""
    for number, (shard, several) in enumerate(zip(shards_of(table), lengths, strict=True)):
        with shard:
            for place, length in enumerate(several):
                identity = 100 * number + place
                shard.add_sequence(identity, small_sequence(identity, length), **options)


def until(found: Callable[[], Any], what: str) -> Any:
    """Wait until something is true, and return it."""
    ends = time.monotonic() + PATIENCE_S
    while not (value := found()):
        assert time.monotonic() < ends, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def make_distributed(cluster: Any) -> Iterator[Callable[..., Any]]:
    """Makes distributed tables of small columns, which end with the module."""
    from shmtable import FifoEjectionStrategy, UniformSampleStrategy
    from shmtable.integrations.ray import DistributedMemoryTable

    made = []

    def make(name: str, **overrides: Any) -> DistributedMemoryTable:
        options: dict[str, Any] = {
            "columns": small_columns(),
            "name": f"test{os.getpid()}-{name}",
            "maxlen": 1000,
            "sampler": UniformSampleStrategy(),
            "ejector": FifoEjectionStrategy(),
            # A loaded machine is slow, and no test but one is about that.
            "deadline_s": 60.0,
            **overrides,
        }
        made.append(DistributedMemoryTable(**options))
        return made[-1]

    yield make
    for table in made:
        table.close()
    left = [name for name in os.listdir("/dev/shm") if f"test{os.getpid()}-" in name]
    assert left == []
