"""Collect CartPole, keep it as a Minari dataset, and learn a value function from that alone."""

from __future__ import annotations

import argparse
from functools import partial

import gymnasium
import minari
import torch
from torch import nn

import shmtable as st
from shmtable.integrations.gymnasium import Collector, columns_from_spaces
from shmtable.integrations.minari import add_dataset, columns_from_dataset, dataset_from_table

NAME = "shmtable-example/cartpole-random-v0"


def collect(transitions: int) -> None:
    """A dataset of random play, of at least so many transitions."""
    with gymnasium.make("CartPole-v1") as environment:
        spaces = environment.observation_space, environment.action_space
    make = partial(gymnasium.make_vec, "CartPole-v1", num_envs=4)
    columns = columns_from_spaces(*spaces)
    with st.uniform_replay(columns, 10 * transitions, limiter=st.MinSize(transitions)) as table:
        with Collector(table, make, workers=2, seed=0):
            table.sample(1, 1, timeout_s=60)  # waits until there is enough
        made = dataset_from_table(table, NAME, *spaces, env="CartPole-v1", algorithm_name="random")
        print(f"{made.total_episodes} episodes, {made.total_steps} steps in {NAME}")


def learn(updates: int) -> None:
    """The value of random play, learned from the dataset by temporal differences."""
    dataset = minari.load_dataset(NAME)
    columns = columns_from_dataset(dataset)
    value = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(value.parameters(), 1e-3)
    with st.uniform_replay(columns, maxlen=dataset.total_steps) as table:
        add_dataset(table, dataset)
        for update in range(updates):
            batch = table.sample(256, 1)
            with torch.no_grad():
                aim = batch["rewards"] + 0.9 * value(batch["next_obs"])[:, 0] * ~batch["terminated"]
            loss = nn.functional.mse_loss(value(batch["obs"])[:, 0], aim)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if update % 100 == 0:
                print(f"update {update}: loss {loss.item():.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transitions", type=int, default=10_000)
    parser.add_argument("--updates", type=int, default=1_000)
    options = parser.parse_args()
    collect(options.transitions)
    try:
        learn(options.updates)
    finally:
        minari.delete_dataset(NAME)
