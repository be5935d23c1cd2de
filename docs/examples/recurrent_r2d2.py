"""Recurrent replay as in R2D2 (Kapturowski et al. 2019): CartPole without its velocities.

Two worker processes play with a recurrent network, one of them exploring, and store its state at
every step. The learner starts each window from the stored state, lets ten steps warm it up, and
learns from the others.
"""

from __future__ import annotations

import argparse
import sys

import gymnasium
import numpy as np
import torch
import torch.multiprocessing as mp
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import Tensor, nn

import shmtable as st
from shmtable.integrations.gymnasium import columns_from_spaces

UNITS, BURN_IN, LEARN = 64, 10, 20


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory, self.values = nn.GRU(2, UNITS, batch_first=True), nn.Linear(UNITS, 2)

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Values of both actions at each step, [B, L, 2], and the state behind the last one."""
        states, last = self.memory(obs[..., ::2], state[None])  # positions, no velocities
        return self.values(states), last[0]


def work(table: st.ArrayMemoryTable, network: Network, epsilon: float, returns: Tensor) -> None:
    """Plays 16 environments, and notes what the last episode of each returned."""
    torch.set_num_threads(1)
    envs = RecordEpisodeStatistics(gymnasium.make_vec("CartPole-v1", num_envs=16))
    writer = table.vector_writer(16, autoreset="next_step", chunk=BURN_IN + LEARN, overlap=BURN_IN)
    following, _ = envs.reset()
    state, over = torch.zeros(16, UNITS), np.zeros(16, bool)
    while True:
        obs = following
        with torch.no_grad():
            values, next_state = network(torch.from_numpy(obs)[:, None], state)
        best, other = values[:, 0].argmax(1).numpy(), np.random.randint(2, size=16)
        actions = np.where(np.random.random(16) < epsilon, other, best)
        following, rewards, terminated, truncated, _ = envs.step(actions)
        step = {"obs": obs, "state": state.numpy(), "actions": actions, "rewards": rewards}
        writer.append(**step, terminated=terminated, truncated=truncated, following=following)
        state = next_state
        state[over] = 0.0  # where an episode was over, this step only began the next one
        over = terminated | truncated
        returns.numpy()[over] = envs.episode_returns[over]


def main(updates: int, goal: float) -> bool:
    torch.manual_seed(0)
    with gymnasium.make("CartPole-v1") as one:
        columns = columns_from_spaces(one.observation_space, one.action_space)
    columns.append(st.Column("state", (UNITS,), "float32", first_only=True))
    pace = st.SampleToInsertRatio(8, min_size=1_000, error_buffer=16_000)
    table = st.r2d2_replay(columns, 100_000, burn_in=BURN_IN, pad="zero", limiter=pace)
    network, target = Network().share_memory(), Network()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    greedy, exploring = torch.zeros(2, 16).share_memory_()
    for epsilon, returns in ((0.0, greedy), (0.2, exploring)):
        args = (table, network, epsilon, returns)
        mp.get_context("spawn").Process(target=work, args=args, daemon=True).start()
    for update in range(1, updates + 1):
        if update % 200 == 1:
            target.load_state_dict(network.state_dict())
        batch = table.sample(32, BURN_IN + LEARN, timeout_s=60)
        values, _ = network(batch["obs"], batch["state"])
        value = values.gather(2, batch["actions"][..., None])[..., 0]
        with torch.no_grad():  # the second observation is the first of the next ones
            _, second = target(batch["obs"][:, :1], batch["state"])
            best = target(batch["next_obs"], second)[0].max(2).values
            aim = batch["rewards"] + 0.99 * best * ~batch["terminated"]
        # An episode's first state is known, and nothing need warm up behind it.
        learn = ~batch["burn_in"] | (batch["state"] == 0).all(1, keepdim=True)
        errors = (aim - value) * (learn & batch["mask"])
        loss = (batch.weights[:, None] * errors.square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        table.update_priorities(batch.points, errors.detach().abs())
        if update % 500 == 0 or update == updates:
            reached = float(greedy.mean())
            print(f"update {update}: return {reached:.0f}", flush=True)
            if reached >= goal:
                break
    print(f"criterion: a return of {goal:g}, mean of 16 episodes; reached: {reached:.0f}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--goal", type=float, default=100.0)
    options = parser.parse_args()
    sys.exit(not main(options.updates, options.goal))
