"""Recurrent replay as in R2D2 (Kapturowski et al. 2019): CartPole without its velocities.

Two worker processes play with a recurrent network and store its state at every step. The learner
starts each window from the stored state, lets ten steps warm it up, and learns from the others.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.multiprocessing as mp
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

import shmtable as st

UNITS, BURN_IN, LEARN = 64, 10, 20


def make() -> gymnasium.Env:
    """Where cart and pole are, not how they move."""
    space = gymnasium.spaces.Box(-5, 5, (2,), np.float32)
    environment = gymnasium.make("CartPole-v1")
    return gymnasium.wrappers.TransformObservation(environment, lambda obs: obs[::2], space)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.values = nn.GRUCell(2, UNITS), nn.Linear(UNITS, 2)

    def unroll(self, obs: Tensor, state: Tensor) -> Tensor:
        """The states behind each step: [B, L, 2] and [B, UNITS] to [B, L, UNITS]."""
        states = []
        for seen in obs.unbind(1):
            state = self.cell(seen, state)
            states.append(state)
        return torch.stack(states, 1)


def play(network: Network, seed: int, epsilon: Any, writer: st.VectorWriter | None) -> float:
    """Eight environments: without a writer one episode of each, for their mean return."""
    envs = SyncVectorEnv([make] * 8, autoreset_mode=AutoresetMode.SAME_STEP)
    random, state = np.random.default_rng(seed), torch.zeros(8, UNITS)
    total, playing = 0.0, np.ones(8, bool)
    obs, _ = envs.reset(seed=seed)
    while writer is not None or playing.any():
        with torch.no_grad():
            following = network.cell(torch.from_numpy(obs), state)
            best = network.values(following).argmax(1).numpy()
        actions = np.where(random.random(8) < epsilon, random.integers(2, size=8), best)
        seen = {"obs": obs.copy(), "state": state.numpy(), "actions": actions}
        obs, rewards, terminated, truncated, infos = envs.step(actions)
        if writer is not None:
            ends = {"terminated": terminated, "truncated": truncated}
            writer.append(**seen, **ends, rewards=rewards, infos=infos)
        total += float((rewards * playing).mean())
        playing &= ~(terminated | truncated)
        state = following * torch.from_numpy(~(terminated | truncated))[:, None]
    return total


def work(table: st.ArrayMemoryTable, network: Network, worker: int) -> None:
    torch.set_num_threads(1)
    parts = {"chunk": BURN_IN + LEARN, "overlap": BURN_IN}
    with table.vector_writer(8, autoreset="same_step", **parts) as writer:
        play(network, 1 + worker, np.geomspace(0.4, 0.02, 8), writer)


def main(updates: int, goal: float) -> bool:
    torch.manual_seed(0)
    columns = [
        st.Column("obs", (2,), "float32"),
        st.Column("state", (UNITS,), "float32", first_only=True),
        st.Column("actions", (), "int64"),
        st.Column("rewards", (), "float32"),
        st.Column("terminated", (), "bool"),
        st.VirtualColumn("next_obs", (2,), "float32", "obs", st.NextElementMapper),
    ]
    pace = st.SampleToInsertRatio(8, min_size=1_000, error_buffer=16_000)
    table = st.r2d2_replay(columns, 100_000, burn_in=BURN_IN, pad="zero", limiter=pace)
    network, target = Network().share_memory(), Network()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    context = mp.get_context("spawn")
    workers = [context.Process(target=work, args=(table, network, n), daemon=True) for n in (0, 1)]
    for worker in workers:
        worker.start()
    for update in range(1, updates + 1):
        if update % 200 == 1:
            target.load_state_dict(network.state_dict())
        batch = table.sample(32, BURN_IN + LEARN, timeout_s=60)
        states = network.unroll(batch["obs"], batch["state"])
        with torch.no_grad():
            before = target.unroll(batch["obs"], batch["state"]).flatten(0, 1)
            following = target.cell(batch["next_obs"].flatten(0, 1), before)
            best = target.values(following).max(1).values.view(32, -1)
            wanted = batch["rewards"] + 0.99 * best * ~batch["terminated"]
        value = network.values(states).gather(2, batch["actions"][..., None])[..., 0]
        # An episode's first state is known, and nothing need warm up behind it.
        learn = ~batch["burn_in"] | (batch["state"] == 0).all(1, keepdim=True)
        error = (wanted - value) * (learn & batch["mask"])
        weights = batch.weights[:, None]
        loss = (weights * nn.functional.smooth_l1_loss(error, 0 * error, reduction="none")).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        table.update_priorities(batch.points, error.detach().abs())
        if update % 500 == 0 or update == updates:
            reached = float(np.mean([play(network, seed, 0.0, None) for seed in (100, 101)]))
            print(f"update {update}: return {reached:.0f}", flush=True)
            if reached >= goal:
                break
    for worker in workers:
        worker.kill()
        worker.join()
    print(f"criterion: a return of {goal:g}, mean of 16 episodes; reached: {reached:.0f}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--goal", type=float, default=100.0)
    options = parser.parse_args()
    sys.exit(not main(options.updates, options.goal))
