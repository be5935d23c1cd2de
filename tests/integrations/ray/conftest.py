"""A Ray cluster of three nodes on this machine, and tables on it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shmtable import ArrayMemoryTable
from tests.tables import small_columns, small_sequence

_STORE_BYTES = 80 << 20
# A node that says nothing for so long is taken for lost: far less than on a real cluster, and
# enough for a loaded machine.
_HEALTH = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 4,
}
PATIENCE_S = 90.0


class Simulated:
    """The cluster; all its nodes are processes of this machine, with one shared memory."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        # Sockets lie in it, whose paths must be short.
        self.folder = tempfile.mkdtemp(prefix="ray-")
        os.mkdir(os.path.join(self.folder, "ray"))
        os.environ["RAY_TMPDIR"] = self.folder
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "object_store_memory": _STORE_BYTES,
                "include_dashboard": False,
                "temp_dir": self.folder,
                "_system_config": _HEALTH,
            },
        )
        self.more = [self.add_node() for _ in range(2)]
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")

    def add_node(self) -> Any:
        return self._cluster.add_node(num_cpus=2, object_store_memory=_STORE_BYTES)

    def lose(self, node: Any) -> None:
        """What is on a node is gone at once, as if it had been switched off."""
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        import ray

        ray.shutdown()
        self._cluster.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)
        del os.environ["RAY_TMPDIR"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Simulated]:
    """Three nodes; made once, as that takes seconds."""
    made = Simulated()
    yield made
    made.close()


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
def make_distributed(cluster: Simulated) -> Iterator[Callable[..., Any]]:
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
