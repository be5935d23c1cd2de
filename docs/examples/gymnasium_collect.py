"""Two worker processes play CartPole, eight environments each; this process learns from it.

The policy is a network in shared memory: the workers act by it, and follow it as it changes.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import gymnasium
import numpy as np
import torch
from torch import nn

import shmtable as st
from shmtable.integrations.gymnasium import Collector, columns_from_spaces


class Policy(nn.Module):
    """Epsilon-greedy over Q-values; observations of many environments in, actions out."""

    def __init__(self, epsilon: float = 0.1) -> None:
        super().__init__()
        self.values = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 2))
        self.epsilon = epsilon

    def forward(self, observations: np.ndarray) -> np.ndarray:
        best = self.values(torch.from_numpy(observations)).argmax(1).numpy()
        random = np.random.randint(2, size=len(best))
        return np.where(np.random.random(len(best)) < self.epsilon, random, best)


def mean_return(policy: Policy, episodes: int) -> float:
    environments = gymnasium.make_vec("CartPole-v1", num_envs=episodes)
    observations, _ = environments.reset(seed=0)
    returns, playing = np.zeros(episodes), np.ones(episodes, bool)
    while playing.any():
        with torch.no_grad():
            actions = policy(observations)
        observations, rewards, terminated, truncated, _ = environments.step(actions)
        returns += rewards * playing
        playing &= ~(terminated | truncated)
    environments.close()
    return float(returns.mean())


def main(updates: int, goal: float) -> bool:
    make = partial(gymnasium.make_vec, "CartPole-v1", num_envs=8)
    environments = make()
    columns = columns_from_spaces(
        environments.single_observation_space, environments.single_action_space
    )
    environments.close()
    policy, target, greedy = Policy(), Policy(), Policy(epsilon=0.0)
    policy.share_memory()
    greedy.values = policy.values
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    # Each transition is used eight times; workers that run ahead wait.
    pace = st.SampleToInsertRatio(8, min_size=1_000, error_buffer=8_000)
    reached = 0.0
    with (
        st.uniform_replay(columns, maxlen=50_000, limiter=pace) as table,
        Collector(table, make, policy, workers=2, seed=0) as collector,
    ):
        for update in range(1, updates + 1):
            if update % 100 == 0:
                target.load_state_dict(policy.state_dict())
            batch = table.sample(128, 1, timeout_s=60)
            with torch.no_grad():
                following = target.values(batch["next_obs"]).max(1).values
                aim = batch["rewards"] + 0.99 * following * ~batch["terminated"]
            value = policy.values(batch["obs"]).gather(1, batch["actions"][:, None])[:, 0]
            loss = nn.functional.smooth_l1_loss(value, aim)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if update % 500 == 0 or update == updates:
                reached = mean_return(greedy, 20)
                print(f"update {update}: return {reached:.0f}, {table.stats().transitions} steps")
                if reached >= goal:
                    break
        for death in collector.deaths:
            print(f"lost on the way: {death}")
    print(f"criterion: a return of {goal:g}, mean of 20 episodes; reached: {reached:.0f}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=30_000)
    parser.add_argument("--goal", type=float, default=195.0)
    options = parser.parse_args()
    sys.exit(not main(options.updates, options.goal))
