"""DQN on CartPole-v1: two worker processes play, eight environments each; this process learns.

All act by one network in shared memory: the workers follow it as it changes.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

import shmtable as st
from shmtable.integrations.gymnasium import Collector, columns_from_spaces


def act(network: nn.Module, observations: np.ndarray) -> Tensor:
    """Observations of a worker's environments in, actions out: one in twenty is random."""
    best = network(torch.from_numpy(observations)).argmax(1)
    return torch.where(torch.rand(len(best)) < 0.05, torch.randint_like(best, 2), best)


def make_network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
    )


def main(updates: int, goal: float) -> bool:
    with gymnasium.make("CartPole-v1") as one:
        columns = columns_from_spaces(one.observation_space, one.action_space)
    values, target = make_network().share_memory(), make_network()
    optimizer = torch.optim.Adam(values.parameters(), 1e-3)
    # Each transition is used 32 times; workers that run ahead wait.
    pace = st.SampleToInsertRatio(32, min_size=1_000, error_buffer=32_000)
    make = partial(gymnasium.make_vec, "CartPole-v1", num_envs=8)
    with (
        st.uniform_replay(columns, maxlen=100_000, limiter=pace) as table,
        Collector(table, make, partial(act, values), workers=2) as collector,
    ):
        for update in range(1, updates + 1):
            if update % 200 == 1:
                target.load_state_dict(values.state_dict())
            batch = table.sample(128, 1, timeout_s=60)
            with torch.no_grad():
                following = target(batch["next_obs"]).max(1).values
                aim = batch["rewards"] + 0.99 * following * ~batch["terminated"]
            value = values(batch["obs"]).gather(1, batch["actions"][:, None])[:, 0]
            optimizer.zero_grad()
            nn.functional.smooth_l1_loss(value, aim).backward()
            optimizer.step()
            if update % 500 == 0 or update == updates:
                reached = float(collector.episodes.returns[-20:].mean())
                print(f"update {update}: return {reached:.0f}, {len(table)} steps", flush=True)
                if reached >= goal:
                    break
        for death in collector.deaths:
            print(f"lost on the way: {death}")
    print(f"criterion: a return of {goal:g}, mean of the last 20 episodes; reached: {reached:.0f}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=60_000)
    parser.add_argument("--goal", type=float, default=475.0)
    sys.exit(not main(**vars(parser.parse_args())))
