"""Stable-Baselines3: a replay buffer in shared memory, in place of its own.

Needs the extra: ``pip install 'shmtable[sb3]'``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import partial
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
from shmtable.integrations.open_steps import OpenSteps
from shmtable.mappers import NextNElementWrapper
from shmtable.protocols.arguments import at_least_one
from shmtable.strategies import FifoEjectionStrategy, UniformSampleStrategy
from shmtable.table import ArrayMemoryTable
from shmtable.types import BoolArray

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

    The steps of each environment become sequences of 32 steps in ``.table``, or of fewer at the end
    of an episode. An observation is stored once, and once more at the end of each sequence, which
    is always what really followed. Steps that are no sequence yet are kept in this process, and
    samples are drawn from both: each step can be sampled as soon as it has been added.

    Args:
        buffer_size: most transitions, of all environments together.
        observation_space: of one environment; a ``Dict`` of one level too.
        action_space: of one environment.
        device: where samples are delivered.
        n_envs: environments, each of which every ``add`` brings one step.
        optimize_memory_usage: accepted and of no consequence: memory is always saved, and timeouts
            are handled all the same.
        handle_timeout_termination: in samples, an episode that ``TimeLimit`` cut off is not done.
        n_steps: steps over which rewards are summed, as in ``NStepReplayBuffer``: give it, and
            gamma, as ``replay_buffer_kwargs``.
        gamma: discount of those rewards.
        name: makes ``.table`` attachable by name, see :class:`ArrayMemoryTable`.
        seed: of the sampling; by default drawn from numpy's global generator, which
            Stable-Baselines3 has seeded by then.
        **others: none; those of ``HerReplayBuffer`` are refused with a word about what to do.

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
        n_steps: int = 1,
        gamma: float = 0.99,
        name: str | None = None,
        seed: int | None = None,
        **others: Any,
    ) -> None:
        _refuse(others)
        buffer_size, n_envs, self.n_steps = (
            at_least_one("buffer_size", buffer_size),
            at_least_one("n_envs", n_envs),
            at_least_one("n_steps", n_steps),
        )
        if 1 < self.n_steps > buffer_size // n_envs // 4:
            raise SpecError(
                f"n_steps is {n_steps} and buffer_size {buffer_size}, for {n_envs} environments; "
                f"give a buffer_size of at least {4 * n_steps * n_envs}"
            )
        self.gamma = gamma
        # Not ReplayBuffer's own, which makes its arrays.
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)  # in steps of all environments, as there
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.name = name
        self.seed = int(np.random.randint(2**31)) if seed is None else seed
        self._random = np.random.default_rng(self.seed)
        self._open = OpenSteps(
            n_envs,
            {column: (shape, dtype) for column, shape, dtype in self._observation_columns()},
            ((self.action_dim,), self._action_dtype()),
            max(1, min(_LONGEST, self.buffer_size // 16)),  # what is open should be a small part
            self.n_steps,
            gamma,
        )
        self._make()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.table!r}, n_envs={self.n_envs})"

    def _make(self) -> None:
        observed = [
            Column(column, shape, dtype) for column, shape, dtype in self._observation_columns()
        ]
        mapper = NextNElementWrapper(self.n_steps)
        following = [
            VirtualColumn(f"next_{c.name}", c.shape, c.dtype, c.name, mapper) for c in observed
        ]
        stored = [
            Column("actions", (self.action_dim,), self._action_dtype()),
            Column("rewards", (self.n_steps,) if self.n_steps > 1 else (), "float32"),
            Column("dones", (), "float32"),
        ]
        if self.n_steps > 1:
            stored.append(Column("discounts", (), "float32"))
        self.table = ArrayMemoryTable(
            *observed,
            *stored,
            *following,
            maxlen=self.n_envs * (self.buffer_size - self._open.most + 1),
            sampler=UniformSampleStrategy(),
            ejector=FifoEjectionStrategy(),
            name=self.name,
            seed=self.seed,
        )

    def _action_dtype(self) -> np.dtype[Any]:
        return np.dtype(self._maybe_cast_dtype(self.action_space.dtype))

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
        over = np.array(done, np.bool_).reshape(self.n_envs)
        ends = over.astype(np.float32)
        if self.handle_timeout_termination:
            cut_off = [bool(info.get("TimeLimit.truncated", False)) for info in infos]
            ends *= 1 - np.array(cut_off, np.float32)
        self._write(self._open.interrupted(now), ended=True)
        self._open.append(now, later, actions=action, rewards=np.asarray(reward), dones=ends)
        self._write(over, ended=True)
        self._write(self._open.full(), ended=False)
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

    def _write(self, which: BoolArray, *, ended: bool) -> None:
        """Make sequences of the open steps of these environments."""
        for environment in which.nonzero()[0].tolist():
            steps = self._open.whole(environment, ended)
            if steps > 0:
                self._open.give(
                    environment, steps, partial(self.table.add_sequence, new_identity())
                )

    def flush(self) -> None:
        """Write the steps that are new, so that other processes see them.

        With ``n_steps`` above 1, the newest stay out until what follows them is known.
        """
        self._write(self._open.lengths > 0, ended=False)

    def reset(self) -> None:
        """Remove everything."""
        super().reset()
        self._open.clear()
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
        batch = self._draw(at_least_one("batch_size", batch_size))
        now, later = self._observed(batch, "", env), self._observed(batch, "next_", env)
        # In numpy, as they do it, for the same rounding.
        rewards = self._normalize_reward(batch["rewards"].view(-1, self.n_steps).numpy(), env)
        discounts = None
        if self.n_steps > 1:
            powers = self.gamma ** np.arange(self.n_steps, dtype=np.float32)
            rewards = (rewards * powers).sum(axis=1, keepdims=True)
            discounts = batch["discounts"].view(-1, 1).to(self.device)
        dones = batch["dones"].view(-1, 1).to(self.device)
        rest = (dones, torch.from_numpy(rewards).to(self.device), discounts)
        actions = batch["actions"].to(self.device)
        if isinstance(self.observation_space, spaces.Dict):
            return DictReplayBufferSamples(now, actions, later, *rest)
        return ReplayBufferSamples(now[_ONLY], actions, later[_ONLY], *rest)

    def _draw(self, count: int) -> Mapping[str, Tensor]:
        """Transitions by column, in the table or still open, each of them equally likely."""
        stored, pending = self.table.size(), int(self._open.lengths.sum())
        newest = self._random.binomial(count, pending / (stored + pending)) if pending else 0
        if not newest:
            return self.table.sample(count, 1)
        taken = self._open.take(self._random.integers(pending, size=newest))
        if newest == count:
            return {name: torch.from_numpy(rows) for name, rows in taken.items()}
        batch = self.table.sample(count, 1)
        for name, rows in taken.items():  # in place of as many others: quicker than joining them
            batch[name].numpy()[:newest] = rows
        return batch

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
        state = self.__dict__.copy()
        del state["table"]
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


def _refuse(others: Mapping[str, Any]) -> None:
    for name in others:
        if name in ("env", "n_sampled_goal", "goal_selection_strategy", "copy_info_dict"):
            raise SpecError(
                f"{name} is an argument of HerReplayBuffer, which has no counterpart here; use "
                "that class, or keep goals in a table of your own, with a mapper that looks up "
                "what was achieved later"
            )
        raise SpecError(
            f"{name} is no argument of ShmReplayBuffer; leave it out, or give n_steps, gamma, name "
            "or seed"
        )
