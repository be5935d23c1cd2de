"""On-policy learning as in IMPALA (Espeholt et al. 2018), through a queue: CartPole-v1.

Workers add unrolls of up to 20 steps, each of which the learner sees exactly once; when it falls
behind, they wait. V-trace corrects for the updates that happened since an unroll was played.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import shmtable as st
from shmtable.integrations.gymnasium import Collector, columns_from_spaces

STEPS, BATCH, DISCOUNT = 20, 16, 0.99


def act(network: nn.Module, observations: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
    """Actions, and how likely they were, which the table has a column for."""
    policy = Categorical(logits=network(torch.from_numpy(observations))[:, :2])
    actions = policy.sample()
    return actions, {"chances": policy.log_prob(actions)}


def vtrace(errors: Tensor, decays: Tensor) -> Tensor:
    """What to add to the values; as both bounds are 1, the policy's advantages as well: [B, L]."""
    better = errors.clone()
    for step in reversed(range(STEPS - 1)):
        better[:, step] += decays[:, step] * better[:, step + 1]
    return better


def main(updates: int, goal: float) -> bool:
    with gymnasium.make("CartPole-v1") as one:
        columns = columns_from_spaces(one.observation_space, one.action_space)
    columns.append(st.Column("chances", (), "float32"))
    # Unrolls that end with an episode are shorter, and filled up; a column "mask" says where.
    table = st.on_policy_queue(columns, size=4 * BATCH, steps=STEPS, pad="zero")
    hidden = (nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    network = nn.Sequential(*hidden, nn.Linear(64, 3)).share_memory()  # two logits and a value
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    make = partial(gymnasium.make_vec, "CartPole-v1", num_envs=8)
    with Collector(table, make, partial(act, network), workers=2, longest=STEPS) as collector:
        for update in range(1, updates + 1):
            batch = table.sample(BATCH, STEPS, timeout_s=60)
            outputs = network(batch["obs"])
            policy, values = Categorical(logits=outputs[..., :2]), outputs[..., 2]
            chances = policy.log_prob(batch["actions"])
            with torch.no_grad():
                ratios = (chances - batch["chances"]).exp().clamp(max=1.0)
                later = network(batch["next_obs"])[..., 2] * ~batch["terminated"]
                rewards = 0.1 * batch["rewards"]  # or the values' errors outweigh all else
                errors = ratios * (rewards + DISCOUNT * later - values) * batch["mask"]
                advantages = vtrace(errors, DISCOUNT * ratios)
                aim = values + advantages
            losses = 0.5 * (aim - values).square() - chances * advantages - 0.01 * policy.entropy()
            optimizer.zero_grad()
            losses[batch["mask"]].mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            if update % 250 == 0 or update == updates:
                reached = float(collector.episodes.returns.mean())
                print(f"update {update}: return {reached:.0f}", flush=True)
                if reached >= goal:
                    break
    print(f"criterion: a return of {goal:g}, mean of the last 100 episodes; reached: {reached:.0f}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--goal", type=float, default=475.0)
    sys.exit(not main(**vars(parser.parse_args())))
