"""Vector environments that are played into a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.errors import WaitTimeoutError
from shmtable.integrations.needed import needed
from shmtable.integrations.spaces import (
    ACTION,
    OBSERVATION,
    REWARD,
    TERMINATED,
    TRUNCATED,
    flattened,
)
from shmtable.table import ArrayMemoryTable

with needed("gymnasium", extra="gymnasium"):
    from gymnasium.vector import AutoresetMode, VectorEnv

_FINAL = "final_obs"
_LOOK_S = 0.5  # how often an episode that has to wait is asked after


class EpisodeRecorder:
    """Plays a vector environment, and adds each of its episodes to a table when it ends.

    All of Gymnasium's ways to begin anew are understood (``AutoresetMode``). What has not ended
    when the recorder goes is forgotten.

    Args:
        environments: the vector environment.
        table: with the columns of :func:`columns_from_spaces`, or some of them.
        longest: episodes longer than this become several sequences, all but the last of which
            count as truncated; ``table.maxlen`` if less.
        is_wanted: asked now and then while an episode waits, for the table's limiter or for room
            that others are writing into; False gives up and raises. None waits as long as it
            takes.
    """

    def __init__(
        self,
        environments: VectorEnv[Any, Any, Any],
        table: ArrayMemoryTable,
        longest: int = 10_000,
        is_wanted: Callable[[], bool] | None = None,
    ) -> None:
        mode = environments.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = AutoresetMode(mode)
        self.environments = environments
        self._is_wanted = is_wanted
        self._kept = {column.name for column in table.columns} - {TERMINATED, TRUNCATED}
        self._writer = table.vector_writer(
            environments.num_envs,
            autoreset=self.mode,
            chunk=min(longest, table.maxlen),
            timeout_s=_LOOK_S,
            unfinished="drop",
        )
        self._seen: dict[str, Any] = {}

    def reset(self, seed: int | None = None) -> Any:
        """Begins everywhere; what was under way is dropped. Returns the observations."""
        observations, _ = self.environments.reset(seed=seed)
        self._writer.drop()
        self._seen = _copied(self._flat(observations))
        return observations

    def step(self, actions: Any) -> Any:
        """Takes one step in every environment. Returns the observations to act on next.

        Raises:
            WaitTimeoutError: an episode had to wait, and was not wanted any more; of the limiter,
                a ``RateLimitedError``.
        """
        environments = self.environments
        observations, rewards, terminated, truncated, infos = environments.step(actions)
        following = self._flat(observations)
        values = {
            **self._seen,
            **flattened(environments.single_action_space, actions, ACTION),
            REWARD: rewards,
        }
        values = {name: value for name, value in values.items() if name in self._kept}
        if _FINAL in infos:
            infos = {
                **infos,
                _FINAL: [None if one is None else self._flat(one) for one in infos[_FINAL]],
            }
        ended = {TERMINATED: np.asarray(terminated), TRUNCATED: np.asarray(truncated)}
        self._append(**ended, following=following, infos=infos, **values)
        return self._begin_again(observations, ended[TERMINATED] | ended[TRUNCATED])

    def close(self) -> None:
        """Forget what has not ended."""
        self._writer.drop()
        self._writer.close()

    def _append(self, **step: Any) -> None:
        while True:
            try:
                return self._writer.append(**step)
            except WaitTimeoutError:
                if self._is_wanted is not None and not self._is_wanted():
                    raise

    def _begin_again(self, observations: Any, ended: npt.NDArray[np.bool_]) -> Any:
        if self.mode is AutoresetMode.DISABLED and ended.any():
            observations, _ = self.environments.reset(options={"reset_mask": ended})
        # A vector environment may use its arrays again.
        self._seen = _copied(self._flat(observations))
        return observations

    def _flat(self, observations: Any) -> dict[str, Any]:
        return flattened(self.environments.single_observation_space, observations, OBSERVATION)


def _copied(flat: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(value) for name, value in flat.items()}
