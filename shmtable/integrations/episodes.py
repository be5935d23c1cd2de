"""Vector environments that are played into a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from shmtable.errors import WaitTimeoutError
from shmtable.integrations.needed import needed
from shmtable.integrations.own_columns import OwnColumns
from shmtable.integrations.spaces import (
    ACTION,
    OBSERVATION,
    REWARD,
    TERMINATED,
    TRUNCATED,
    flattened,
)
from shmtable.table import ArrayMemoryTable
from shmtable.types import BoolArray

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
        table: with the columns of :func:`columns_from_spaces`, or some of them, and others that
            whoever acts fills at every step.
        longest: episodes longer than this become several sequences, all but the last of which
            count as truncated; ``table.maxlen`` if less.
        is_wanted: asked now and then while an episode waits, for the table's limiter or for room
            that others are writing into; False gives up and raises. None waits as long as it
            takes.
        overlap: steps that two parts of such an episode share; less than they have.

    Attributes:
        own: the names of those other columns.
        begun: bool [N], which of the observations returned last are the first of an episode.
        ended: return (sum of rewards) and length of each episode that the last step ended, however
            many sequences it became.

    Raises:
        SpecError: an option that cannot be, or a virtual column that looks ahead in one of ``own``.
    """

    def __init__(
        self,
        environments: VectorEnv[Any, Any, Any],
        table: ArrayMemoryTable,
        longest: int = 10_000,
        is_wanted: Callable[[], bool] | None = None,
        *,
        overlap: int = 0,
    ) -> None:
        mode = environments.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = AutoresetMode(mode)
        self.environments = environments
        self._is_wanted = is_wanted
        self._own = OwnColumns(table, environments)
        self.own = tuple(self._own.names)
        self._kept = {column.name for column in table.columns} - {TERMINATED, TRUNCATED}
        count = environments.num_envs
        self._writer = table.vector_writer(
            count,
            autoreset=self.mode,
            chunk=min(longest, table.maxlen),
            overlap=overlap,
            timeout_s=_LOOK_S,
            unfinished="drop",
        )
        self._seen: dict[str, Any] = {}
        self.begun: BoolArray = np.zeros(count, bool)
        self.ended: list[tuple[float, int]] = []
        self._over: BoolArray = np.zeros(count, bool)  # whose next step only resets it
        self._returns = np.zeros(count)
        self._lengths = np.zeros(count, np.int64)

    def reset(self, seed: int | None = None) -> Any:
        """Begins everywhere; what was under way is dropped. Returns the observations."""
        observations, _ = self.environments.reset(seed=seed)
        self._writer.drop()
        self._seen = _copied(self._flat(observations))
        self.begun, self._over = np.ones_like(self.begun), np.zeros_like(self._over)
        self.ended = []
        self._returns[:] = self._lengths[:] = 0
        return observations

    def step(self, actions: Any, columns: Mapping[str, Any] | None = None) -> Any:
        """Takes one step in every environment. Returns the observations to act on next.

        Args:
            actions: as the environments take them.
            columns: for each of ``own`` one value for each environment, [N, *shape].

        Raises:
            SequenceError: columns that do not fit; no step was taken.
            WaitTimeoutError: an episode had to wait, and was not wanted any more; of the limiter,
                a ``RateLimitedError``.
        """
        own = self._own.values(columns or {})
        environments = self.environments
        observations, rewards, terminated, truncated, infos = environments.step(actions)
        following = self._flat(observations)
        values = {
            **self._seen,
            **flattened(environments.single_action_space, actions, ACTION),
            REWARD: rewards,
        }
        values = {name: value for name, value in values.items() if name in self._kept} | own
        if _FINAL in infos:
            infos = {
                **infos,
                _FINAL: [None if one is None else self._flat(one) for one in infos[_FINAL]],
            }
        ended = {TERMINATED: np.asarray(terminated), TRUNCATED: np.asarray(truncated)}
        self._append(**ended, following=following, infos=infos, **values)
        over = ended[TERMINATED] | ended[TRUNCATED]
        self._count(np.asarray(rewards), over)
        return self._begin_again(observations, over)

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

    def _count(self, rewards: Any, over: BoolArray) -> None:
        """Follow episodes over the step just taken."""
        resets = self._over
        self._returns += np.where(resets, 0.0, rewards)
        self._lengths += ~resets
        ended = over & ~resets
        self.ended = list(
            zip(self._returns[ended].tolist(), self._lengths[ended].tolist(), strict=True)
        )
        self._returns[ended] = self._lengths[ended] = 0
        if self.mode is AutoresetMode.NEXT_STEP:
            self.begun, self._over = resets, ended
        else:
            self.begun = ended

    def _begin_again(self, observations: Any, ended: BoolArray) -> Any:
        if self.mode is AutoresetMode.DISABLED and ended.any():
            observations, _ = self.environments.reset(options={"reset_mask": ended})
        # A vector environment may use its arrays again.
        self._seen = _copied(self._flat(observations))
        return observations

    def _flat(self, observations: Any) -> dict[str, Any]:
        return flattened(self.environments.single_observation_space, observations, OBSERVATION)


def _copied(flat: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(value) for name, value in flat.items()}
