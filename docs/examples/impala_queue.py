"""On-policy learning as in IMPALA (Espeholt et al. 2018), through a queue: CartPole-v1.

Actors add unrolls of 20 steps, each of which the learner sees exactly once; when it falls behind,
they wait. V-trace corrects for the updates that happened since an unroll was played.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributions import Categorical

import shmtable as st

STEPS, BATCH, DISCOUNT = 20, 16, 0.99
STEPWISE = ("actions", "rewards", "dones", "chances", "returns")


def make_network() -> nn.Module:
    """Observations in, logits of the two actions and a value out."""
    return nn.Sequential(
        nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3)
    )


def act(table: st.ArrayMemoryTable, network: nn.Module, actor: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(actor)
    with gymnasium.make("CartPole-v1") as environment:
        seen, _ = environment.reset(seed=actor)
        total = 0.0
        for identity in range(actor, 2**62, 2):  # an identity of its own for each unroll
            unroll: dict[str, list[Any]] = {name: [] for name in ("obs", *STEPWISE)}
            for _ in range(STEPS):
                unroll["obs"].append(seen)
                with torch.no_grad():
                    policy = Categorical(logits=network(torch.from_numpy(seen))[:2])
                action = policy.sample()
                seen, reward, over, cut, _ = environment.step(action.item())
                total += float(reward)
                scored = total if over or cut else np.nan
                if over or cut:
                    (seen, _), total = environment.reset(), 0.0
                step = (action.item(), reward, over or cut, policy.log_prob(action).item(), scored)
                for name, value in zip(STEPWISE, step, strict=True):
                    unroll[name].append(value)
            unroll["obs"].append(seen)
            table.add_sequence(identity, unroll, timeout_s=None)


def vtrace(ratios: Tensor, values: Tensor, rewards: Tensor, discounts: Tensor) -> Tensor:
    """Targets of the values, [B, L + 1]; ``values`` [B, L + 1], the others [B, L]."""
    errors = ratios * (rewards + discounts * values[:, 1:] - values[:, :-1])
    wanted = values.clone()
    for step in reversed(range(STEPS)):
        behind = wanted[:, step + 1] - values[:, step + 1]
        wanted[:, step] += errors[:, step] + discounts[:, step] * ratios[:, step] * behind
    return wanted


def main(updates: int, goal: float) -> bool:
    torch.manual_seed(0)
    columns = [
        st.Column("obs", (4,), "float32"),
        st.VirtualColumn("last", (4,), "float32", "obs", st.NextElementMapper.with_only_last),
        st.Column("actions", (), "int64"),
        st.Column("dones", (), "bool"),
        *(st.Column(name, (), "float32") for name in ("rewards", "chances", "returns")),
    ]
    network = make_network().share_memory()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    finished: list[float] = []
    table = st.on_policy_queue(columns, size=4 * BATCH, steps=STEPS)
    context = mp.get_context("spawn")
    actors = [context.Process(target=act, args=(table, network, n), daemon=True) for n in (0, 1)]
    for actor in actors:
        actor.start()
    for update in range(1, updates + 1):
        batch = table.sample(BATCH, STEPS, timeout_s=60)
        logits, values = network(torch.cat([batch["obs"], batch["last"][:, None]], 1)).split(
            [2, 1], -1
        )
        policy, values = Categorical(logits=logits[:, :-1]), values[..., 0]
        chances = policy.log_prob(batch["actions"])
        with torch.no_grad():
            ratios = (chances - batch["chances"]).exp().clamp(max=1.0)
            discounts = DISCOUNT * ~batch["dones"]
            wanted = vtrace(ratios, values, batch["rewards"], discounts)
            advantages = ratios * (batch["rewards"] + discounts * wanted[:, 1:] - values[:, :-1])
        loss = (
            -(chances * advantages).mean()
            + 0.5 * (wanted - values)[:, :-1].square().mean()
            - 0.01 * policy.entropy().mean()
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        finished += batch["returns"][~batch["returns"].isnan()].tolist()
        reached = float(np.mean(finished[-100:])) if finished else 0.0
        if update % 250 == 0:
            print(f"update {update}: return {reached:.0f}", flush=True)
        if len(finished) >= 100 and reached >= goal:
            break
    for actor in actors:
        actor.kill()
        actor.join()
    print(f"criterion: a return of {goal:g}, mean of the last 100 episodes; reached: {reached:.0f}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--goal", type=float, default=195.0)
    options = parser.parse_args()
    sys.exit(not main(options.updates, options.goal))
