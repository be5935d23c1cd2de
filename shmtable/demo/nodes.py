"""A Ray cluster whose nodes are all on this machine, to try on it what is meant for many."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import suppress
from types import TracebackType
from typing import Any

from shmtable.integrations.needed import needed

with needed("ray", extra="ray"):
    import ray
    from ray.cluster_utils import Cluster


class SimulatedNodes:
    """So many nodes, to which this process belongs until ``close``.

    Args:
        count: of nodes.
        store_bytes: of each node's object store.
        silent_s: a node that is not heard of for about so long is taken for lost.
    """

    def __init__(self, count: int, *, store_bytes: int = 80 << 20, silent_s: int = 5) -> None:
        # Sockets lie in it, whose paths must be short.
        self._folder = tempfile.mkdtemp(prefix="ray-")
        os.mkdir(os.path.join(self._folder, "ray"))
        self._before = dict(os.environ)
        os.environ["RAY_TMPDIR"] = self._folder
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        self._size = {"num_cpus": 2, "object_store_memory": store_bytes}
        health = {
            "health_check_initial_delay_ms": 2000,
            "health_check_period_ms": 1000,
            "health_check_timeout_ms": 3000,
            "health_check_failure_threshold": silent_s,
        }
        head = {"include_dashboard": False, "temp_dir": self._folder, "_system_config": health}
        self._cluster = Cluster(initialize_head=True, head_node_args={**self._size, **head})
        self.more = [self.add() for _ in range(count - 1)]
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")

    @property
    def ids(self) -> list[str]:
        """Ray's ids of the nodes that are alive."""
        return [node["NodeID"] for node in ray.nodes() if node["Alive"]]

    def add(self) -> Any:
        """Start another node."""
        return self._cluster.add_node(**self._size)

    def lose(self, node: str, *pids: int) -> None:
        """End a node at once, as if it had been switched off.

        Args:
            node: its id; not this process's own.
            *pids: processes of that node that would outlive it by a moment.
        """
        found = next(one for one in self.more if one.node_id == node)
        self.more.remove(found)
        self._cluster.remove_node(found, allow_graceful=False)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Leave the cluster, and end it."""
        ray.shutdown()
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)
        for name in ("RAY_TMPDIR", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
            if name in self._before:
                os.environ[name] = self._before[name]
            else:
                del os.environ[name]

    def __enter__(self) -> SimulatedNodes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
