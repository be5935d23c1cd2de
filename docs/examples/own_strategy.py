"""A sampler of one's own: half of what is learned from comes from episodes that succeeded.

Random walks over a frozen lake seldom reach the other shore. The few that do are worth more than
one look; nothing of the others need be thrown away for that.
"""

from __future__ import annotations

import argparse
import sys

import gymnasium
import numpy as np
import torch

import shmtable as st
from shmtable.integrations.gymnasium import columns_from_spaces

LAKE = gymnasium.make("FrozenLake-v1", map_name="8x8", is_slippery=False)


class SuccessSampleStrategy(st.SampleStrategy):
    """Draws windows of sequences that were added with a priority above 0, and of no others."""

    takes_priorities = True

    def states(self) -> tuple[st.StateSpec, ...]:
        return (st.StateSpec("success", "slot", "float64"),)

    def receive(self, slot: int, start: int, length: int, priority: float | None) -> None:
        self.arrays["success"][slot] = priority or 0.0

    def sample(
        self, count: int, sequence_length: int, random: np.random.Generator
    ) -> st.SamplePoints:
        slots = self.view.live_slots()
        slots = slots[self.arrays["success"][slots] > 0]
        ends = np.cumsum(self.view.window_counts(slots, sequence_length))
        if not len(ends) or not ends[-1]:
            return self.view.points(slots[:0], slots[:0])  # nothing to sample
        windows = random.integers(ends[-1], size=count)
        places = ends.searchsorted(windows, side="right")
        return self.view.points(slots[places], ends[places] - 1 - windows)


def walk(values: torch.Tensor | None, writer: st.Writer | None = None) -> int:
    """Greedily, or at random; how many steps it took to the shore, 0 if it did not get there."""
    (place, _), over, cut, steps = LAKE.reset(), False, False, 0
    while not (over or cut):
        action = LAKE.action_space.sample() if values is None else int(values[place].argmax())
        following, reward, over, cut, _ = LAKE.step(action)
        if writer is not None:
            writer.append(obs=place, actions=action, rewards=reward)
        place, steps = following, steps + 1
    if writer is not None:
        writer.end(obs=place, terminated=over, truncated=cut, priority=float(reward))
    return steps if reward else 0


def main(episodes: int, goal: int) -> bool:
    torch.manual_seed(0)
    LAKE.action_space.seed(0)
    columns = columns_from_spaces(LAKE.observation_space, LAKE.action_space)
    values = 1e-6 * torch.rand(64, 4, dtype=torch.float64)
    # Until an episode has succeeded, the second one draws everything.
    halves = [(0.5, SuccessSampleStrategy()), (0.5, st.UniformSampleStrategy())]
    sampler = st.MixtureSampleStrategy(halves)
    table = st.uniform_replay(columns, 1_000_000, sampler=sampler, seed=0)
    with table, table.writer() as writer:
        for episode in range(1, episodes + 1):
            walk(None, writer)
            batch = table.sample(16, 1)
            best = values[batch["next_obs"]].max(1).values
            aim = batch["rewards"] + 0.95 * best * ~batch["terminated"]
            values[batch["obs"], batch["actions"]] = aim
            steps = walk(values) if episode % 20 == 0 or episode == episodes else 0
            if 0 < steps <= goal:
                break
    print(f"criterion: ashore within {goal} steps, after {episode} episodes; reached: {steps}")
    return 0 < steps <= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--goal", type=int, default=14, help="steps to the other shore")
    sys.exit(not main(**vars(parser.parse_args())))
