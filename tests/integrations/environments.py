"""Environments that say in every observation where they are; found by name in spawned workers."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Counting(gymnasium.Env[Any, Any]):
    """Observes (number of the environment, episode, step); the reward is the step reached.

    Episode k of environment i has ``2 + (i + k) % 3`` steps; even ones terminate, odd ones are
    truncated.
    """

    def __init__(self, number: int = 0, nested: bool = False) -> None:
        box = spaces.Box(-1e6, 1e6, (3,), np.float32)
        inner = spaces.Dict({"pair": spaces.Tuple((box, spaces.Discrete(100)))})
        self.observation_space = spaces.Dict({"where": inner, "box": box}) if nested else box
        self.action_space = spaces.Discrete(1_000_000)
        self.nested = nested
        self.number, self.episode, self.at = number, -1, 0

    def _seen(self) -> Any:
        seen = np.array([self.number, self.episode, self.at], np.float32)
        return {"where": {"pair": (seen, self.at)}, "box": -seen} if self.nested else seen

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.at = self.episode + 1, 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at += 1
        over = self.at == 2 + (self.number + self.episode) % 3
        cut = bool(self.episode % 2)
        return self._seen(), float(self.at), over and not cut, over and cut, {}


def counting(
    environments: int, mode: AutoresetMode = AutoresetMode.NEXT_STEP, nested: bool = False
) -> SyncVectorEnv:
    """A vector environment of them."""
    makers = [partial(Counting, number, nested) for number in range(environments)]
    return SyncVectorEnv(makers, autoreset_mode=mode)


class Encoding:
    """A policy whose action tells the observation it was chosen at: 100 * episode + step."""

    def __call__(self, observations: Any) -> Any:
        return (observations[:, 1] * 100 + observations[:, 2]).astype(np.int64)


class Failing(Encoding):
    """Raises, or kills its process, when it sees the third episode."""

    def __init__(self, kill: bool) -> None:
        self.kill = kill

    def __call__(self, observations: Any) -> Any:
        if (observations[:, 1] >= 2).any():
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("no third episode")
        return super().__call__(observations)


class Remembering(Encoding):
    """Counts the steps of each environment's episode, and gives the table what it had counted.

    Its state is ``[steps, -steps]`` before the step it acts at.
    """

    def __init__(self) -> None:
        self.steps: Any = None

    def reset(self, begun: Any) -> None:
        if self.steps is None:
            assert begun.all()
            self.steps = torch.full((len(begun),), -1)
        self.steps[begun] = 0

    def __call__(self, observations: Any) -> Any:
        before = torch.stack([self.steps, -self.steps], 1)
        self.steps = self.steps + 1
        return torch.from_numpy(super().__call__(observations)), {"state": before}


class Answering(Encoding):
    """Returns the same columns with all actions."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __call__(self, observations: Any) -> Any:
        return super().__call__(observations), self.columns
