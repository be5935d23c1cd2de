"""Episodes: what goes into the table, and that a time limit is not taken for an end."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from shmtable.demo.environment import evaluate, make_environment, pack, play
from shmtable.demo.options import LONGEST_EPISODE, parse
from shmtable.demo.replay import make_table


class Scripted(gymnasium.Env):
    """Counts its steps and ends as it is told: by itself or by the time limit."""

    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, steps: int, *, terminated: bool) -> None:
        self.steps, self.terminated, self.now = steps, terminated, 0

    def reset(self, *, seed=None, options=None):
        self.now = 0
        return np.zeros(4, np.float32), {}

    def step(self, action):
        self.now += 1
        last = self.now == self.steps
        observation = np.full(4, self.now, np.float32)
        return observation, 1.0, last and self.terminated, last and not self.terminated, {}


def balance(observation: np.ndarray) -> int:
    """Keeps the pole up for as long as it is allowed to."""
    position, speed, angle, turning = observation
    return int(angle + 0.4 * turning + 0.05 * speed + 0.01 * position > 0)


@pytest.mark.parametrize("terminated", [True, False])
def test_an_episode_says_whether_it_really_ended(terminated):
    episode = play(Scripted(3, terminated=terminated), lambda seen: int(seen[0]) % 2)
    assert len(episode) == 3
    assert episode.total_reward == 3.0
    assert episode.sequence["obs"].shape == (4, 4)
    assert episode.sequence["obs"][:, 0].tolist() == [0, 1, 2, 3]
    assert episode.sequence["actions"].tolist() == [0, 1, 0]
    assert episode.sequence["terminated"].tolist() == [False, False, terminated]


def test_columns_have_the_declared_types():
    sequence = pack([np.zeros(4, np.float32)] * 2, [1], [1.0], terminated=True)
    kinds = {name: column.dtype.name for name, column in sequence.items()}
    assert kinds == {
        "obs": "float32",
        "actions": "int64",
        "rewards": "float32",
        "terminated": "bool",
    }


def test_the_time_limit_leaves_something_to_bootstrap_from():
    environment = make_environment()
    environment.reset(seed=0)
    episode = play(environment, balance)
    assert len(episode) == LONGEST_EPISODE
    assert not episode.sequence["terminated"].any()


@pytest.mark.parametrize("terminated", [True, False])
def test_the_table_gives_back_the_last_step_whole(terminated):
    episode = play(Scripted(3, terminated=terminated), lambda seen: 0)
    with make_table(parse([])) as table:
        table.add_sequence(7, episode.sequence)
        batch = table.sample(64, 1)
        assert table.check() == []
    # The observation after the last action is there, whether or not it will be used.
    assert (batch["next_obs"] == batch["obs"] + 1).all()
    last = batch["obs"][:, 0] == 2
    assert last.any()
    assert batch["terminated"].tolist() == (last & terminated).tolist()


def test_evaluation_agrees_with_playing_alone():
    # Pushing only to the left, an episode lasts 8 to 11 steps, whatever its start.
    environment = make_environment()
    environment.reset(seed=3)
    alone = [play(environment, lambda seen: 0).total_reward for _ in range(200)]
    together = evaluate(lambda seen: np.zeros(len(seen), np.int64), 200, seed=4)
    assert together == pytest.approx(np.mean(alone), abs=0.3)


def test_evaluation_counts_each_episode_once_and_to_the_time_limit():
    def choose(seen: np.ndarray) -> np.ndarray:
        # The first half of the environments fall soon and start again; the others never fall.
        actions = np.array([balance(one) for one in seen], np.int64)
        actions[: len(seen) // 2] = 0
        return actions

    mean_return = evaluate(choose, 4, seed=0)
    assert (LONGEST_EPISODE + 8) / 2 <= mean_return <= (LONGEST_EPISODE + 11) / 2


def test_evaluation_is_repeatable():
    def choose(seen: np.ndarray) -> np.ndarray:
        return (seen[:, 2] > 0).astype(np.int64)

    assert evaluate(choose, 5, seed=1) == evaluate(choose, 5, seed=1)
    assert evaluate(choose, 5, seed=1) != evaluate(choose, 5, seed=2)
