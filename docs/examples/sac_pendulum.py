"""SAC on Pendulum-v1: a worker process plays four of them, this process learns."""

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


def network(inputs: int, outputs: int) -> nn.Module:
    hidden = (nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(256, outputs))


def choose(actor: nn.Module, obs: Tensor) -> tuple[Tensor, Tensor]:
    """Actions between -2 and 2, and the logarithms of how likely they were."""
    mean, log_std = actor(obs).chunk(2, -1)
    normal = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
    raw = normal.rsample()
    chance = normal.log_prob(raw) - torch.log(1 - raw.tanh() ** 2 + 1e-6)
    return 2 * raw.tanh(), chance.sum(-1)


def act(actor: nn.Module, observations: np.ndarray) -> Tensor:
    return choose(actor, torch.from_numpy(observations))[0]


def main(updates: int, goal: float) -> bool:
    with gymnasium.make("Pendulum-v1") as one:
        columns = columns_from_spaces(one.observation_space, one.action_space)
    actor, critics = network(3, 2).share_memory(), nn.ModuleList(network(4, 1) for _ in "12")
    # Followers of the critics, slower and so steadier.
    slow = torch.optim.swa_utils.AveragedModel(
        critics, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    critic_step, actor_step = (torch.optim.Adam(net.parameters(), 1e-3) for net in (critics, actor))
    pace = st.SampleToInsertRatio(256, min_size=1_000, error_buffer=256_000)  # an update a step
    table = st.uniform_replay(columns, maxlen=50_000, limiter=pace)
    make = partial(gymnasium.make_vec, "Pendulum-v1", num_envs=4)
    # Episodes are cut, so that the learner need not wait for their end.
    with table, Collector(table, make, partial(act, actor), longest=20) as collector:
        for update in range(1, updates + 1):
            batch = table.sample(256, 1, timeout_s=60)
            obs, following = batch["obs"], batch["next_obs"]
            with torch.no_grad():
                action, chance = choose(actor, following)
                least = torch.min(
                    *(q(torch.cat([following, action], 1))[:, 0] for q in slow.module)
                )
                aim = batch["rewards"] + 0.99 * (least - 0.2 * chance) * ~batch["terminated"]
            values = [q(torch.cat([obs, batch["actions"]], 1))[:, 0] for q in critics]
            critic_step.zero_grad()
            sum(nn.functional.mse_loss(value, aim) for value in values).backward()
            critic_step.step()
            action, chance = choose(actor, obs)
            least = torch.min(*(q(torch.cat([obs, action], 1))[:, 0] for q in critics))
            actor_step.zero_grad()
            (0.2 * chance - least).mean().backward()
            actor_step.step()
            slow.update_parameters(critics)
            if update % 1000 == 0 or update == updates:
                reached = float(collector.episodes.returns[-20:].mean())
                print(f"update {update}: return {reached:.0f}", flush=True)
                if reached >= goal:
                    break
    print(f"criterion: a return of {goal:g}, mean of the last 20 episodes; reached: {reached:.0f}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--goal", type=float, default=-200.0)
    sys.exit(not main(**vars(parser.parse_args())))
