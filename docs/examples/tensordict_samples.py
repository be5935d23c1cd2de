"""Samples as TensorDict, and trajectories that come as one."""

from __future__ import annotations

import torch
from tensordict import TensorDict

import shmtable as st
from shmtable.integrations.tensordict import add_tensordict, as_tensordict


def main() -> None:
    columns = [
        st.Column("obs.camera", (8, 8), "uint8"),
        st.Column("obs.speed", (), "float32"),
        st.VirtualColumn("next.obs.speed", (), "float32", "obs.speed", st.NextElementMapper),
        st.Column("actions", (), "int64"),
        st.TagColumn("task", (), "int64"),
    ]
    steps = 20
    trajectory = TensorDict(
        {
            "obs": {
                "camera": torch.zeros(steps, 8, 8, dtype=torch.uint8),
                "speed": torch.arange(steps, dtype=torch.float32),
            },
            "actions": torch.arange(steps),
            "task": torch.full((steps,), 3),
            "next": {"obs": {"speed": torch.arange(1, steps + 1, dtype=torch.float32)}},
        },
        batch_size=[steps],
    )
    with st.uniform_replay(columns, maxlen=1_000) as table:
        add_tensordict(table, 1, trajectory)  # the last speed is the last one under "next"
        sample = table.sample(4, 5)
        batch = as_tensordict(table, sample)
    assert batch.batch_size == (4, 5)
    assert batch["obs", "camera"].shape == (4, 5, 8, 8)
    assert torch.equal(batch["next", "obs", "speed"], batch["obs", "speed"] + 1)
    assert (batch["task"] == 3).all()  # one value per sequence, seen at every step
    print(batch)


if __name__ == "__main__":
    main()
