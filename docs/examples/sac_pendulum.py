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


class Actor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network(3, 2)

    def act(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.net(obs).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
        raw = normal.rsample()
        chance = normal.log_prob(raw) - torch.log(1 - raw.tanh() ** 2 + 1e-6)
        return 2 * raw.tanh(), chance.sum(-1)

    def forward(self, observations: np.ndarray) -> np.ndarray:
        return self.act(torch.from_numpy(observations))[0].numpy()


def mean_return(actor: Actor, episodes: int = 20) -> float:
    environments = gymnasium.make_vec("Pendulum-v1", num_envs=episodes)
    observations, _ = environments.reset(seed=0)
    total = 0.0
    for _ in range(200):  # which is when all of them end
        with torch.no_grad():
            mean = 2 * actor.net(torch.from_numpy(observations))[:, :1].tanh()
        observations, rewards, *_ = environments.step(mean.numpy())
        total += float(rewards.mean())
    return total


def main(updates: int, goal: float) -> bool:
    torch.manual_seed(0)
    make = partial(gymnasium.make_vec, "Pendulum-v1", num_envs=4)
    with gymnasium.make("Pendulum-v1") as one:
        columns = columns_from_spaces(one.observation_space, one.action_space)
    actor, critics, slow = Actor().share_memory(), *([network(4, 1) for _ in "12"] for _ in "12")
    for critic, follower in zip(critics, slow, strict=True):
        follower.load_state_dict(critic.state_dict())
    learned = [p for critic in critics for p in critic.parameters()]
    followers = [p for critic in slow for p in critic.parameters()]
    critic_step, actor_step = (torch.optim.Adam(p, 1e-3) for p in (learned, actor.parameters()))
    pace = st.SampleToInsertRatio(256, min_size=1_000, error_buffer=256_000)  # an update a step
    table = st.uniform_replay(columns, maxlen=50_000, limiter=pace)
    # Episodes are cut, so that the learner need not wait for their end.
    with table, Collector(table, make, actor, seed=0, longest=20):
        for update in range(1, updates + 1):
            batch = table.sample(256, 1, timeout_s=60)
            obs, following = batch["obs"], batch["next_obs"]
            with torch.no_grad():
                action, chance = actor.act(following)
                least = torch.min(*(q(torch.cat([following, action], 1))[:, 0] for q in slow))
                aim = batch["rewards"] + 0.99 * (least - 0.2 * chance) * ~batch["terminated"]
            values = [q(torch.cat([obs, batch["actions"]], 1))[:, 0] for q in critics]
            loss = sum(nn.functional.mse_loss(value, aim) for value in values)
            critic_step.zero_grad()
            loss.backward()
            critic_step.step()
            action, chance = actor.act(obs)
            least = torch.min(*(q(torch.cat([obs, action], 1))[:, 0] for q in critics))
            actor_step.zero_grad()
            (0.2 * chance - least).mean().backward()
            actor_step.step()
            with torch.no_grad():
                for follower, parameter in zip(followers, learned, strict=True):
                    follower.lerp_(parameter, 0.005)
            if update % 1000 == 0 or update == updates:
                reached = mean_return(actor)
                print(f"update {update}: return {reached:.0f}", flush=True)
                if reached >= goal:
                    break
    print(f"criterion: a return of {goal:g}, mean of 20 episodes; reached: {reached:.0f}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--goal", type=float, default=-200.0)
    options = parser.parse_args()
    sys.exit(not main(options.updates, options.goal))
