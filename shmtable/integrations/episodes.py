"""The steps of a vector environment, put together to sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.errors import SpecError
from shmtable.integrations.needed import needed
from shmtable.integrations.spaces import (
    ACTION,
    OBSERVATION,
    REWARD,
    TERMINATED,
    TRUNCATED,
    flattened,
)

with needed("gymnasium", extra="gymnasium"):
    from gymnasium.vector import AutoresetMode, VectorEnv

BoolArray = npt.NDArray[np.bool_]
#: Takes what becomes one sequence: column name to array, observations with one row more.
Take = Callable[[dict[str, npt.NDArray[Any]]], None]


@dataclass
class _Open:
    """What one environment has lived through since its sequence began."""

    first: dict[str, Any]
    steps: list[dict[str, Any]] = field(default_factory=list)
    observations: list[dict[str, Any]] = field(default_factory=list)

    def packed(self) -> dict[str, npt.NDArray[Any]]:
        sequence = {name: np.stack([step[name] for step in self.steps]) for name in self.steps[0]}
        rows = [self.first, *self.observations]
        sequence.update({name: np.stack([row[name] for row in rows]) for name in self.first})
        return sequence


class EpisodeRecorder:
    """Plays a vector environment and hands out its episodes, each as one sequence.

    All of Gymnasium's ways to begin anew are understood (``AutoresetMode``): whichever it is, an
    episode ends with the observation that followed its last action, and the step that only resets
    is no part of any.

    Args:
        environments: the vector environment.
        take: called with each sequence.
        longest: episodes longer than this are handed out in pieces of so many steps; the
            observation at which one piece ends is the first of the next.
    """

    def __init__(self, environments: VectorEnv[Any, Any, Any], take: Take, longest: int) -> None:
        if longest < 1:
            raise SpecError(f"longest is {longest}; give at least 1 step")
        mode = environments.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = AutoresetMode(mode)
        self.environments = environments
        self.take = take
        self.longest = longest
        self._open: list[_Open] = []
        self._done: BoolArray = np.zeros(environments.num_envs, np.bool_)

    def reset(self, seed: int | None = None) -> Any:
        """Begins everywhere; what was under way is dropped. Returns the observations."""
        observations, _ = self.environments.reset(seed=seed)
        flat = self._flat(observations)
        self._open = [_Open(_one(flat, number)) for number in range(self.environments.num_envs)]
        self._done[:] = False
        return observations

    def step(self, actions: Any) -> Any:
        """Takes one step in every environment. Returns the observations to act on next."""
        environments = self.environments
        resetting = self._done.copy() if self.mode is AutoresetMode.NEXT_STEP else None
        observations, rewards, terminated, truncated, infos = environments.step(actions)
        done: BoolArray = np.asarray(terminated) | np.asarray(truncated)
        flat = self._flat(observations)
        acted = flattened(environments.single_action_space, actions, ACTION)
        for number, episode in enumerate(self._open):
            if resetting is not None and resetting[number]:
                self._open[number] = _Open(_one(flat, number))
                continue
            step = _one(acted, number)
            step[REWARD] = np.asarray(rewards[number])
            step[TERMINATED] = np.asarray(terminated[number])
            step[TRUNCATED] = np.asarray(truncated[number])
            episode.steps.append(step)
            if done[number] and self.mode is AutoresetMode.SAME_STEP:
                episode.observations.append(self._copied(infos["final_obs"][number]))
            else:
                episode.observations.append(_one(flat, number))
            if done[number] or len(episode.steps) == self.longest:
                self.take(episode.packed())
                # After an end this is replaced by where the next episode begins.
                self._open[number] = _Open(episode.observations[-1])
        self._done = done
        return self._begin_again(observations, flat)

    def _begin_again(self, observations: Any, flat: Mapping[str, Any]) -> Any:
        if not self._done.any() or self.mode is AutoresetMode.NEXT_STEP:
            return observations
        if self.mode is AutoresetMode.DISABLED:
            observations, _ = self.environments.reset(options={"reset_mask": self._done.copy()})
            flat = self._flat(observations)
        for number in np.flatnonzero(self._done):
            self._open[number] = _Open(_one(flat, int(number)))
        return observations

    def _flat(self, observations: Any) -> dict[str, Any]:
        return flattened(self.environments.single_observation_space, observations, OBSERVATION)

    def _copied(self, observation: Any) -> dict[str, Any]:
        return {name: np.array(value) for name, value in self._flat(observation).items()}


def _one(flat: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One environment's part, copied: a vector environment may use its arrays again."""
    return {name: np.array(value[number]) for name, value in flat.items()}
