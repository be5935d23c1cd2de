"""Recurrent replay as in R2D2 (Kapturowski et al. 2019): CartPole without its velocities.

Two worker processes play with a recurrent network, one of them exploring, and store its state at
every step. The learner starts each window from the stored state, lets ten steps warm it up, and
learns from the others.
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

UNITS, BURN_IN, LEARN = 64, 10, 20


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory, self.values = nn.GRU(2, UNITS, batch_first=True), nn.Linear(UNITS, 2)

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Values of both actions at each step, [B, L, 2], and the state behind the last one."""
        states, last = self.memory(obs[..., ::2], state[None])  # positions, no velocities
        return self.values(states), last[0]


class Policy:
    """Epsilon-greedy; the table gets the state from which each action was chosen."""

    def __init__(self, network: Network, epsilon: float) -> None:
        self.network, self.epsilon, self.state = network, epsilon, torch.zeros(0)

    def reset(self, begun: np.ndarray) -> None:  # at first, in all environments
        kept = torch.zeros(len(begun), UNITS) if begun.all() else self.state
        self.state = kept.masked_fill(torch.from_numpy(begun)[:, None], 0.0)

    def __call__(self, observations: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        before = self.state
        values, self.state = self.network(torch.from_numpy(observations)[:, None], before)
        best = values[:, 0].argmax(1)
        explores = torch.rand(len(best)) < self.epsilon
        return torch.where(explores, torch.randint_like(best, 2), best), {"state": before}


def main(updates: int, goal: float) -> bool:
    with gymnasium.make("CartPole-v1") as one:
        columns = columns_from_spaces(one.observation_space, one.action_space)
    columns.append(st.Column("state", (UNITS,), "float32", first_only=True))
    pace = st.SampleToInsertRatio(64, min_size=2_000, error_buffer=128_000)
    table = st.r2d2_replay(columns, 100_000, burn_in=BURN_IN, pad="zero", limiter=pace)
    network, target = Network().share_memory(), Network()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    make = partial(gymnasium.make_vec, "CartPole-v1", num_envs=16)
    exploring, greedy = (
        Collector(table, make, policy, longest=BURN_IN + LEARN, overlap=BURN_IN)
        for policy in (Policy(network, 0.2), Policy(network, 0.0))
    )
    with table, exploring, greedy:
        for update in range(1, updates + 1):
            if update % 200 == 1:
                target.load_state_dict(network.state_dict())
            batch = table.sample(32, BURN_IN + LEARN, timeout_s=60)
            values, _ = network(batch["obs"], batch["state"])
            value = values.gather(2, batch["actions"][..., None])[..., 0]
            with torch.no_grad():  # the second observation is the first of the next ones
                _, second = target(batch["obs"][:, :1], batch["state"])
                best = target(batch["next_obs"], second)[0].max(2).values
                aim = batch["rewards"] + 0.97 * best * ~batch["terminated"]
            # An episode's first state is known, and nothing need warm up behind it.
            learn = ~batch["burn_in"] | (batch["state"] == 0).all(1, keepdim=True)
            errors = (aim - value) * (learn & batch["mask"])
            optimizer.zero_grad()
            (batch.weights[:, None] * errors.square()).mean().backward()
            optimizer.step()
            table.update_priorities(batch.points, errors.detach().abs())
            if update % 500 == 0 or update == updates:
                reached = float(greedy.episodes.returns.mean())
                print(f"update {update}: return {reached:.0f}", flush=True)
                if reached >= goal:
                    break
    print(f"criterion: a return of {goal:g}, mean of the last 100 episodes; reached: {reached:.0f}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=30_000)
    parser.add_argument("--goal", type=float, default=120.0)
    sys.exit(not main(**vars(parser.parse_args())))
