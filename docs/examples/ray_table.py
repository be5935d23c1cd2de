"""A table over a Ray cluster: tasks add where they run, a learner samples all of it."""

from __future__ import annotations

import ray
import torch

import shmtable as st
from shmtable.integrations.ray import DistributedMemoryTable


@ray.remote
def collect(table: DistributedMemoryTable, worker: int) -> int:
    """Adds ten episodes to the shard of the node that it runs on."""
    for episode in range(10):
        table.add_sequence(
            worker * 1000 + episode,
            {"obs": torch.rand(101, 4), "actions": torch.randint(2, (100,))},
        )
    return 1000


def main() -> None:
    """Makes the table, starts the tasks and samples while they work."""
    # On a cluster: ray.init(address="auto").
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20)
    with DistributedMemoryTable(
        st.Column("obs", (4,), "float32"),
        st.VirtualColumn("next_obs", (4,), "float32", "obs", st.NextElementMapper),
        st.Column("actions", (), "int64"),
        name="replay",
        maxlen=5_000,  # of each shard
        sampler=st.UniformSampleStrategy(),
        ejector=st.FifoEjectionStrategy(),
    ) as table:
        working = [collect.remote(table, worker) for worker in range(2)]
        batches = table.batches(32, 16, ahead=4, timeout_s=60)  # waits for the first episode
        for _ in range(100):
            batch = next(batches)
        print("added", sum(ray.get(working)), "in", len(table.stats().shards), "shards")
        print("a batch", tuple(batch["next_obs"].shape), "of", len(batch.points), "windows")
    ray.shutdown()


if __name__ == "__main__":
    main()
