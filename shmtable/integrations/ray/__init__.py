"""One table over several machines, on Ray: a shard of shared memory on every node.

Adding is what it is on one machine: a process writes into the shard of its own node. Samples are
drawn from all shards in parallel and come through Ray's object store. Needs ``shmtable[ray]``.
"""

from __future__ import annotations

from shmtable.integrations.ray.table import DistributedMemoryTable
from shmtable.integrations.ray.values import DistributedStats, ShardedPoints, ShardStats

__all__ = ["DistributedMemoryTable", "DistributedStats", "ShardStats", "ShardedPoints"]
