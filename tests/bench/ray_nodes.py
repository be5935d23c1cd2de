"""A simulated Ray cluster on this machine, for the programs that measure on one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.cluster_utils import Cluster


@contextmanager
def simulated(nodes: int, store_bytes: int = 200 << 20) -> Iterator[list[str]]:
    """So many nodes, all of them processes of this machine; their ids."""
    folder = tempfile.mkdtemp(prefix="ray-")  # sockets lie in it, whose paths must be short
    os.mkdir(os.path.join(folder, "ray"))
    os.environ["RAY_TMPDIR"] = folder
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    size = {"num_cpus": 2, "object_store_memory": store_bytes}
    head = {**size, "include_dashboard": False, "temp_dir": folder}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**size)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
