"""A mapper of one's own: goals in hindsight (Andrychowicz et al. 2017), to flip bits to a pattern.

The reward comes only where all bits are right, which hardly ever happens by chance. But every
episode shows how to get where it ended: a column that takes no memory, looked up when sampling.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from torch import Tensor, nn

import shmtable as st

BITS = 12


class EndMapper(st.Mapper):
    """For each transition, the row of the target behind the last transition of its sequence."""

    look_ahead = 1  # sequences bring that row

    def compute(self, windows: st.Windows, column: st.VirtualColumn) -> Tensor:
        ends = windows.positions() + windows.remaining()
        return windows.gather_at(column.target_name, ends, ahead=1)


def play(values: nn.Module, epsilon: float, writer: st.Writer) -> bool:
    """One episode; whether it ended at the goal."""
    bits, goal = torch.randint(2, (2, BITS)).float()
    for _ in range(BITS):
        with torch.no_grad():
            action = values(torch.cat([bits, goal])).argmax()
        if torch.rand(()) < epsilon:
            action = torch.randint(BITS, ())
        writer.append(obs=bits, goal=goal, actions=action)
        bits[action] = 1 - bits[action]
        if torch.equal(bits, goal):
            break
    writer.end(obs=bits)
    return torch.equal(bits, goal)


def main(episodes: int, goal: float) -> bool:
    torch.manual_seed(0)
    values, target = (
        nn.Sequential(nn.Linear(2 * BITS, 256), nn.ReLU(), nn.Linear(256, BITS)) for _ in "12"
    )
    optimizer = torch.optim.Adam(values.parameters(), 1e-3)
    columns = [st.Column(name, (BITS,), "float32") for name in ("obs", "goal")]
    columns += [
        st.Column("actions", (), "int64"),
        st.VirtualColumn("next_obs", (BITS,), "float32", "obs", st.NextElementMapper),
        st.VirtualColumn("end", (BITS,), "float32", "obs", EndMapper),
    ]
    with st.uniform_replay(columns, maxlen=100_000) as table, table.writer() as writer:
        for episode in range(1, episodes + 1):
            play(values, 0.1, writer)
            batch = table.sample(128, 1)
            # Half of them pursue the goal they had, half the one they reached.
            aims = torch.cat([batch["goal"][:64], batch["end"][64:]])
            with torch.no_grad():
                best = target(torch.cat([batch["next_obs"], aims], 1)).max(1).values
            there = (batch["next_obs"] == aims).all(1)
            wanted = torch.where(there, 0.0, -1 + 0.98 * best)
            now = values(torch.cat([batch["obs"], aims], 1))
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(now.gather(1, batch["actions"][:, None])[:, 0], wanted)
            loss.backward()
            optimizer.step()
            if episode % 50 == 0:
                target.load_state_dict(values.state_dict())
            if episode % 1000 == 0 or episode == episodes:
                reached = float(np.mean([play(values, 0.0, writer) for _ in range(100)]))
                print(f"episode {episode}: {reached:.0%} of the goals reached", flush=True)
                if reached >= goal:
                    break
    print(f"criterion: {goal:.0%} of 100 goals reached; reached: {reached:.0%}")
    return reached >= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=40_000)
    parser.add_argument("--goal", type=float, default=0.95)
    sys.exit(not main(**vars(parser.parse_args())))
