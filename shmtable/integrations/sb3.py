"""Stable-Baselines3: a replay buffer in shared memory, in place of its own.

Needs the extra: ``pip install 'shmtable[sb3]'``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns import Column, VirtualColumn
from shmtable.errors import ArenaInUseError, SpecError
from shmtable.integrations.identities import new_identity
from shmtable.integrations.needed import needed
from shmtable.mappers import NextElementMapper
from shmtable.protocols.arguments import at_least_one
from shmtable.strategies import FifoEjectionStrategy, UniformSampleStrategy
from shmtable.table import ArrayMemoryTable

with needed("stable_baselines3", "gymnasium", extra="sb3"):
    from gymnasium import spaces
    from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
    from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
    from stable_baselines3.common.vec_env import VecNormalize

__all__ = ["ShmReplayBuffer"]

_ONLY = "obs"  # the column of observations that have no names of their own
_LONGEST = 32  # steps of a sequence: one observation in so many is stored twice

Array = npt.NDArray[Any]


class ShmReplayBuffer(ReplayBuffer):
    """A replay buffer for ``DQN``, ``SAC``, ``TD3``, ``DDPG`` that lives in shared memory.

    Give it as ``replay_buffer_class=ShmReplayBuffer``, for ``"MultiInputPolicy"`` too. It has the
    methods and attributes of Stable-Baselines3's ``ReplayBuffer`` and ``DictReplayBuffer``, except
    for the arrays in which those keep their data.

    The steps of each environment become sequences of at most 32 steps in ``.table``. An
    observation is stored once, and once more at the end of each sequence, which
    is always what really followed. What has been added is sampled at once: before it samples, the
    buffer writes the steps that are new, replacing the sequence they go on with.

    Args:
        buffer_size: most transitions, of all environments together.
        observation_space: of one environment; a ``Dict`` of one level too.
        action_space: of one environment.
        device: where samples are delivered.
        n_envs: environments, each of which every ``add`` brings one step.
        optimize_memory_usage: accepted and of no consequence: memory is always saved, and timeouts
            are handled all the same.
        handle_timeout_termination: in samples, an episode that ``TimeLimit`` cut off is not done.
        name: makes ``.table`` attachable by name, see :class:`ArrayMemoryTable`.
        seed: of the sampling; by default drawn from numpy's global generator, which
            Stable-Baselines3 has seeded by then.

    Raises:
        SpecError: an argument that cannot be.
    """

    observations: Any
    next_observations: Any

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        name: str | None = None,
        seed: int | None = None,
    ) -> None:
        buffer_size, n_envs = (
            at_least_one("buffer_size", buffer_size),
            at_least_one("n_envs", n_envs),
        )
        # Not ReplayBuffer's own, which makes its arrays.
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)  # in steps of all environments, as there
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.name = name
        self.seed = int(np.random.randint(2**31)) if seed is None else seed
        self._make()

    def _make(self) -> None:
        maxlen = self.buffer_size * self.n_envs
        # A sequence that is replaced and its successor count both for a moment: let it be little.
        longest = max(1, min(_LONGEST, self.buffer_size // 16))
        action_dtype = self._maybe_cast_dtype(self.action_space.dtype)
        observed = [
            Column(column, shape, dtype) for column, shape, dtype in self._observation_columns()
        ]
        following = [
            VirtualColumn(f"next_{c.name}", c.shape, c.dtype, c.name, NextElementMapper())
            for c in observed
        ]
        stored = [
            Column("actions", (self.action_dim,), np.dtype(action_dtype)),
            Column("rewards", (), "float32"),
            Column("dones", (), "float32"),
        ]
        self.table = ArrayMemoryTable(
            *observed,
            *stored,
            *following,
            maxlen=maxlen,
            sampler=UniformSampleStrategy(),
            ejector=FifoEjectionStrategy(),
            on_duplicate="replace",
            name=self.name,
            seed=self.seed,
        )
        self._open = [_Chunk((*observed, *stored), longest) for _ in range(self.n_envs)]

    def _observation_columns(self) -> list[tuple[str, tuple[int, ...], Any]]:
        """Name, shape and dtype of each."""
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            shapes: Mapping[str, tuple[int, ...]] = self.obs_shape  # type: ignore[assignment]
            return [(f"{_ONLY}.{key}", shapes[key], part.dtype) for key, part in space.items()]
        return [(_ONLY, self.obs_shape, space.dtype)]

    # -- adding --------------------------------------------------------------------------------

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: Array,
        reward: Array,
        done: Array,
        infos: list[dict[str, Any]],
    ) -> None:
        """Add one step of every environment.

        Args:
            obs: observations [n_envs, ...], or a dictionary of such arrays.
            next_obs: what followed; after the last step of an episode its last observation.
            action: [n_envs, ...]
            reward: [n_envs]
            done: [n_envs]
            infos: of each environment; "TimeLimit.truncated" counts.
        """
        now, later = self._named(obs), self._named(next_obs)
        action = np.asarray(action).reshape(self.n_envs, self.action_dim)
        ends = np.array(done, np.float32).reshape(self.n_envs)
        if self.handle_timeout_termination:
            cut_off = [bool(info.get("TimeLimit.truncated", False)) for info in infos]
            ends *= 1 - np.array(cut_off, np.float32)
        for number, chunk in enumerate(self._open):
            observed = {name: rows[number] for name, rows in now.items()}
            if not chunk.goes_on(observed):
                self._write(chunk)
                chunk.begin(observed)
            step = {"actions": action[number], "rewards": reward[number], "dones": ends[number]}
            chunk.append(step, {name: rows[number] for name, rows in later.items()})
            if chunk.is_full() or done[number]:
                self._write(chunk)
                chunk.end()
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full = True
            self.pos = 0

    def _named(self, observations: Any) -> dict[str, Array]:
        """Observations by column, each [n_envs, *shape], in the column's dtype."""
        named = {}
        for name, shape, dtype in self._observation_columns():
            _, _, key = name.partition(".")
            rows = np.asarray(observations[key] if key else observations, dtype)
            named[name] = rows.reshape(self.n_envs, *shape)
        return named

    def _write(self, chunk: _Chunk) -> None:
        if chunk.unwritten:
            self.table.add_sequence(chunk.identity, chunk.sequence())
            chunk.unwritten = False

    def flush(self) -> None:
        """Write the steps that are new, so that other processes see them; ``sample`` does too."""
        for chunk in self._open:
            self._write(chunk)

    def reset(self) -> None:
        """Remove everything."""
        super().reset()
        for chunk in self._open:
            chunk.end()
        self.table.clear()

    # -- sampling ------------------------------------------------------------------------------

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> Any:
        """Draw transitions, each equally likely, with replacement.

        Args:
            batch_size: how many.
            env: normalises the observations and rewards, if given.

        Returns:
            ``ReplayBufferSamples``, or ``DictReplayBufferSamples`` for ``Dict`` observations.
        """
        self.flush()
        batch = self.table.sample(batch_size, 1)
        now, later = self._observed(batch, "", env), self._observed(batch, "next_", env)
        rewards = batch["rewards"].view(-1, 1)
        if env is not None:
            rewards = torch.from_numpy(self._normalize_reward(rewards.numpy(), env))
        rest = (batch["dones"].view(-1, 1).to(self.device), rewards.to(self.device))
        actions = batch["actions"].to(self.device)
        if isinstance(self.observation_space, spaces.Dict):
            return DictReplayBufferSamples(now, actions, later, *rest)
        return ReplayBufferSamples(now[_ONLY], actions, later[_ONLY], *rest)

    def _observed(
        self, batch: Mapping[str, Tensor], prefix: str, env: VecNormalize | None
    ) -> dict[str, Tensor]:
        if not isinstance(self.observation_space, spaces.Dict):
            seen = batch[f"{prefix}{_ONLY}"]
            if env is not None:
                seen = torch.as_tensor(self._normalize_obs(seen.numpy(), env))
            return {_ONLY: seen.to(self.device)}
        named = {key: batch[f"{prefix}{_ONLY}.{key}"] for key in self.observation_space.spaces}
        if env is not None:
            arrays: Any = {key: seen.numpy() for key, seen in named.items()}
            normal: Any = self._normalize_obs(arrays, env)
            named = {key: torch.as_tensor(seen) for key, seen in normal.items()}
        return {key: seen.to(self.device) for key, seen in named.items()}

    def _get_samples(self, batch_inds: Array, env: VecNormalize | None = None) -> Any:
        raise SpecError(
            "ShmReplayBuffer has no rows to take by number; call sample(batch_size), or "
            "table.sample for windows of consecutive steps"
        )

    @property
    def dones(self) -> Array:  # type: ignore[override]
        """An array to write to in vain.

        Stable-Baselines3 sets an entry where it cuts a trajectory whose next observation it will
        not have; here every sequence has its own.
        """
        return np.zeros((self.buffer_size, self.n_envs), np.float32)

    # -- files ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the shared memory."""
        self.table.close()

    def __getstate__(self) -> dict[str, Any]:
        # Pickled to a file (``model.save_replay_buffer``) it brings its content along; to share
        # it with a process, pass its table.
        self.flush()
        state = self.__dict__.copy()
        del state["table"], state["_open"]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "table")
            self.table.store(path)
            state["content"] = Path(f"{path}.zip").read_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        content = state.pop("content")
        self.__dict__.update(state)
        try:
            self._make()
        except ArenaInUseError:  # the one it was saved from is still in use here
            self.name = None
            self._make()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "table")
            Path(f"{path}.zip").write_bytes(content)
            self.table.restore(path)


class _Chunk:
    """The newest steps of one environment, until they are a whole sequence."""

    def __init__(self, columns: tuple[Column, ...], longest: int) -> None:
        self._rows = {c.name: np.empty((longest + 1, *c.shape), c.dtype.numpy) for c in columns}
        self._longest = longest
        self._begun = False
        self._length = 0
        self.identity = 0
        self.unwritten = False

    def goes_on(self, observed: Mapping[str, Array]) -> bool:
        """Whether the step that begins with this observation follows the last one."""
        at = self._length
        return self._begun and all(
            np.array_equal(self._rows[name][at], row) for name, row in observed.items()
        )

    def begin(self, observed: Mapping[str, Array]) -> None:
        """A new sequence, of no steps yet."""
        self.identity = new_identity()
        self._begun, self._length = True, 0
        for name, row in observed.items():
            self._rows[name][0] = row

    def append(self, step: Mapping[str, Any], following: Mapping[str, Array]) -> None:
        """One step more, and what was observed after it."""
        behind = self._length + 1
        for name, value in step.items():
            self._rows[name][self._length] = value
        for name, row in following.items():
            self._rows[name][behind] = row
        self._length, self.unwritten = behind, True  # whole, should an interrupt come in between

    def is_full(self) -> bool:
        """Whether no step more fits."""
        return self._length == self._longest

    def end(self) -> None:
        """What comes next is another sequence."""
        self._begun = self.unwritten = False

    def sequence(self) -> dict[str, Array]:
        """What there is, as views: steps, and observations one more."""
        ahead = self._length + 1
        return {
            name: rows[: ahead if name.startswith(_ONLY) else self._length]
            for name, rows in self._rows.items()
        }
