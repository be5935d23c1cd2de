"""CartPole-v1: playing one episode for training, and many at once to judge a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

ENVIRONMENT = "CartPole-v1"
OBSERVATION_SHAPE = (4,)
ACTIONS = 2

Observation = npt.NDArray[np.float32]
# One observation in, one action out.
Choose = Callable[[Observation], int]
# Observations [N, 4] in, actions int64 [N] out.
ChooseMany = Callable[[Observation], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Episode:
    """One episode of T steps.

    Attributes:
        sequence: what goes into the table: obs float32 [T + 1, 4], actions int64 [T],
            rewards float32 [T], terminated bool [T].
        total_reward: sum of the rewards.
    """

    sequence: dict[str, npt.NDArray[Any]]
    total_reward: float

    def __len__(self) -> int:
        return len(self.sequence["actions"])


def make_environment() -> gymnasium.Env[Observation, np.int64]:
    """A CartPole for one actor."""
    return gymnasium.make(ENVIRONMENT, disable_env_checker=True)


def play(environment: gymnasium.Env[Observation, np.int64], choose: Choose) -> Episode:
    """Plays one episode to its end."""
    observation, _ = environment.reset()
    observations, actions, rewards = [observation], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = choose(observation)
        observation, reward, terminated, truncated, _ = environment.step(np.int64(action))
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
    return Episode(pack(observations, actions, rewards, terminated=terminated), sum(rewards))


def pack(
    observations: list[Observation], actions: list[int], rewards: list[float], *, terminated: bool
) -> dict[str, npt.NDArray[Any]]:
    """The columns of one episode, as the table wants them.

    Args:
        observations: T + 1 of them, the last one seen after the last action.
        actions: T actions.
        rewards: T rewards.
        terminated: whether the episode came to a real end. One cut off by the time limit has
            none: its last step is worth its reward *and* what would have followed.
    """
    ends = np.zeros(len(actions), np.bool_)
    ends[-1] = terminated
    return {
        "obs": np.stack(observations),
        "actions": np.array(actions, np.int64),
        "rewards": np.array(rewards, np.float32),
        "terminated": ends,
    }


def evaluate(choose: ChooseMany, episodes: int, seed: int) -> float:
    """Mean return of a policy over episodes played side by side.

    All environments take a step together, so that the network is asked once per step for all
    of them: twenty episodes cost little more than one.
    """
    environments = gymnasium.make_vec(ENVIRONMENT, num_envs=episodes)
    observations, _ = environments.reset(seed=seed)
    returns = np.zeros(episodes)
    playing = np.ones(episodes, np.bool_)
    while playing.any():
        observations, rewards, terminated, truncated, _ = environments.step(choose(observations))
        # An environment that has finished starts again by itself; that no longer counts.
        returns += rewards * playing
        playing &= ~(terminated | truncated)
    environments.close()
    return float(returns.mean())
