"""Two worker processes play CartPole, eight environments each; this process learns from it.

The policy is a network in shared memory: the workers act by it, and follow it as it changes.
"""

from __future__ import annotations

import argparse
from functools import partial

import gymnasium
import numpy as np
import torch
from torch import nn

import shmtable as st
from shmtable.integrations.gymnasium import Collector, columns_from_spaces


class Policy(nn.Module):
    """Epsilon-greedy over Q-values; observations of many environments in, actions out."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, observations: np.ndarray) -> np.ndarray:
        best = self.values(torch.from_numpy(observations)).argmax(1).numpy()
        random = np.random.randint(2, size=len(best))
        return np.where(np.random.random(len(best)) < 0.1, random, best)


def main(updates: int) -> None:
    make = partial(gymnasium.make_vec, "CartPole-v1", num_envs=8)
    environments = make()
    columns = columns_from_spaces(
        environments.single_observation_space, environments.single_action_space
    )
    environments.close()
    policy = Policy()
    policy.share_memory()
    target = Policy()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    # Each transition is used eight times; workers that run ahead wait.
    pace = st.SampleToInsertRatio(8, min_size=1_000, error_buffer=8_000)
    with (
        st.uniform_replay(columns, maxlen=50_000, limiter=pace) as table,
        Collector(table, make, policy, workers=2, seed=0) as collector,
    ):
        for update in range(updates):
            if update % 100 == 0:
                target.load_state_dict(policy.state_dict())
                stats = table.stats()
                length = stats.transitions / max(1, stats.sequences)
                print(f"update {update}: {stats.transitions} transitions, {length:.0f} per episode")
            batch = table.sample(128, 1, timeout_s=60)
            with torch.no_grad():
                following = target.values(batch["next_obs"]).max(1).values
                aim = batch["rewards"] + 0.99 * following * ~batch["terminated"]
            value = policy.values(batch["obs"]).gather(1, batch["actions"][:, None])[:, 0]
            loss = nn.functional.smooth_l1_loss(value, aim)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for death in collector.deaths:
            print(f"lost on the way: {death}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=5_000)
    main(parser.parse_args().updates)
