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

LAKE = {"map_name": "8x8", "is_slippery": False}
SHORTEST = 14  # steps to the other shore


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


def steps_to_shore(values: torch.Tensor) -> int:
    """Of the greedy policy; 0 if it does not get there."""
    with gymnasium.make("FrozenLake-v1", **LAKE) as lake:
        place, _ = lake.reset()
        for step in range(1, 101):
            place, reward, over, _, _ = lake.step(int(values[place].argmax()))
            if over:
                return step if reward else 0
    return 0


def main(episodes: int, goal: int) -> bool:
    torch.manual_seed(0)
    lake = gymnasium.make("FrozenLake-v1", **LAKE)
    columns = columns_from_spaces(lake.observation_space, lake.action_space)
    lake.action_space.seed(0)
    values = 1e-6 * torch.rand(64, 4, dtype=torch.float64)
    # Until an episode has succeeded, the second one draws everything.
    halves = [(0.5, SuccessSampleStrategy()), (0.5, st.UniformSampleStrategy())]
    sampler = st.MixtureSampleStrategy(halves)
    with st.uniform_replay(columns, maxlen=1_000_000, sampler=sampler, seed=0) as table:
        writer = table.writer(priority=lambda sequence: float(sequence["rewards"][-1]))
        for episode in range(1, episodes + 1):
            (place, _), over, cut = lake.reset(), False, False
            while not (over or cut):
                action = lake.action_space.sample()
                following, reward, over, cut, _ = lake.step(action)
                writer.append(obs=place, actions=action, rewards=reward)
                place = following
            writer.end(obs=place, terminated=over, truncated=cut)
            batch = table.sample(16, 1)
            at = batch["obs"], batch["actions"]
            best = values[batch["next_obs"]].max(1).values
            values[at] = batch["rewards"] + 0.95 * best * ~batch["terminated"]
            steps = steps_to_shore(values) if episode % 20 == 0 or episode == episodes else 0
            if 0 < steps <= goal:
                break
    print(
        f"criterion: at the shore within {goal} steps, after {episode} episodes; reached: {steps}"
    )
    return 0 < steps <= goal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--goal", type=int, default=SHORTEST)
    options = parser.parse_args()
    sys.exit(not main(options.episodes, options.goal))
