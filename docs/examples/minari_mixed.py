"""Offline data out of Minari, mixed with what is played now: half of every batch from each.

First a dataset of random play is made, so that there is one. Then a worker process plays CartPole
with the network that this process learns (DQN, with the mixing of Ball et al. 2023).
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import gymnasium
import minari
import numpy as np
import torch
from torch import Tensor, nn

import shmtable as st
from shmtable.integrations.gymnasium import Collector, columns_from_spaces
from shmtable.integrations.minari import add_dataset, columns_from_dataset, dataset_from_table

NAME = "shmtable-example/cartpole-random-v0"
make = partial(gymnasium.make_vec, "CartPole-v1", num_envs=8)


def make_dataset(transitions: int) -> minari.MinariDataset:
    """Random play, of at least so many transitions."""
    with gymnasium.make("CartPole-v1") as one:
        spaces = one.observation_space, one.action_space
    enough = st.MinSize(transitions)
    with st.uniform_replay(columns_from_spaces(*spaces), 10 * transitions, limiter=enough) as table:
        with Collector(table, make, seed=0):
            table.sample(1, 1, timeout_s=60)  # waits until there is enough
        return dataset_from_table(table, NAME, *spaces, env="CartPole-v1", algorithm_name="random")


def act(network: nn.Module, observations: np.ndarray) -> Tensor:
    """Observations of eight environments in, actions out: one in twenty is random."""
    best = network(torch.from_numpy(observations)).argmax(1)
    return torch.where(torch.rand(len(best)) < 0.05, torch.randint_like(best, 2), best)


def learn(dataset: minari.MinariDataset, updates: int, goal: float) -> bool:
    columns = columns_from_dataset(dataset)
    values, target = (nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 2)) for _ in "12")
    values.share_memory()
    optimizer = torch.optim.Adam(values.parameters(), 1e-3)
    pace = st.SampleToInsertRatio(16, min_size=500, error_buffer=16_000)
    offline = st.uniform_replay(columns, maxlen=dataset.total_steps)
    online = st.uniform_replay(columns, maxlen=50_000, limiter=pace)
    add_dataset(offline, dataset)
    both = st.JointTable([(0.5, offline), (0.5, online)])
    with offline, online, Collector(online, make, partial(act, values)) as collector:
        for update in range(1, updates + 1):
            if update % 200 == 1:
                target.load_state_dict(values.state_dict())
            batch = both.sample(128, 1, timeout_s=60)
            with torch.no_grad():
                following = target(batch["next_obs"]).max(1).values
                aim = batch["rewards"] + 0.99 * following * ~batch["terminated"]
            value = values(batch["obs"]).gather(1, batch["actions"][:, None])[:, 0]
            optimizer.zero_grad()
            nn.functional.smooth_l1_loss(value, aim).backward()
            optimizer.step()
            if update % 500 == 0 or update == updates:
                reached = float(collector.episodes.returns[-20:].mean())
                print(f"update {update}: return {reached:.0f}, {len(online)} steps", flush=True)
                if reached >= goal:
                    break
    print(f"criterion: a return of {goal:g}, mean of the last 20 episodes; reached: {reached:.0f}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transitions", type=int, default=10_000)
    parser.add_argument("--updates", type=int, default=40_000)
    parser.add_argument("--goal", type=float, default=475.0)
    options = parser.parse_args()
    try:
        met = learn(make_dataset(options.transitions), options.updates, options.goal)
    finally:
        minari.delete_dataset(NAME)
    sys.exit(not met)
