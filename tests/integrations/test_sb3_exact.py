"""The shared buffer and Stable-Baselines3's own, fed the same steps: the same, to the last bit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from shmtable import SamplePoints, SampleStrategy, SpecError
from shmtable.index import fields as f
from shmtable.integrations import sb3
from tests.integrations.test_sb3 import ACTIONS, BOX, DICT, Stream

NORMAL = "normal"


class Told(SampleStrategy):
    """Gives the windows it was told: (identity, offset) each."""

    wanted: Any = None

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        slots = self.view.live_slots()
        slot_of = dict(zip(self.view.slots[slots, f.IDENTITY].tolist(), slots, strict=True))
        pairs = [(slot_of[identity], offset) for identity, offset in type(self).wanted]
        return self.view.points(*np.array(pairs, np.int64).reshape(-1, 2).T)


class Numbered(sb3.ShmReplayBuffer):
    """Draws the steps that it is told, numbered in each environment as they were added."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"seed": 0, **options})
        self.written: list[list[int]] = [[] for _ in range(self.n_envs)]
        self.told: list[tuple[int, int]] | None = None

    def _write(self, which: Any, *, ended: bool) -> None:
        for place in np.flatnonzero(which):
            before = set(self.table.identities().tolist())
            super()._write(np.arange(self.n_envs) == place, ended=ended)
            self.written[place] += set(self.table.identities().tolist()) - before

    def steps(self, place: int) -> list[tuple[int | None, int]]:
        """What is there of an environment, oldest first: (identity or None, offset)."""
        live = set(self.table.identities().tolist())
        held: list[tuple[int | None, int]] = []
        for identity in self.written[place]:
            if identity in live:
                length = len(self.table.sequence(identity)["dones"])
                held += [(identity, offset) for offset in range(length)]
        return held + [(None, offset) for offset in range(int(self._open.lengths[place]))]

    def _draw(self, count: int) -> Any:
        if self.told is None:  # as the own buffer draws
            most = self.buffer_size if self.full else self.pos
            numbers = np.random.randint(0, most, size=count)
            places = np.random.randint(0, high=self.n_envs, size=count)
        else:
            numbers, places = np.array(self.told).T
        held = [self.steps(place) for place in range(self.n_envs)]
        drawn = [held[place][number] for place, number in zip(places, numbers, strict=True)]
        stored = [at for at, (identity, _) in enumerate(drawn) if identity is not None]
        parts, order = [], list(stored)
        if stored:
            Told.wanted = [drawn[at] for at in stored]
            parts.append(dict(self.table.sample(len(stored), 1)))
        for at, (identity, offset) in enumerate(drawn):
            if identity is None:
                before = int(self._open.lengths[: places[at]].sum())
                taken = self._open.take(np.array([before + offset]))
                parts.append({name: torch.from_numpy(rows) for name, rows in taken.items()})
                order.append(at)
        back = torch.from_numpy(np.argsort(order))
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}


@pytest.fixture(autouse=True)
def _told(monkeypatch):
    monkeypatch.setattr(sb3, "UniformSampleStrategy", Told)


def contents(buffer: ReplayBuffer, env: Any, monkeypatch: Any) -> list[list[bytes]]:
    """All there is to sample of each environment, oldest first."""
    found = []
    for place in range(buffer.n_envs):
        if isinstance(buffer, Numbered):
            buffer.told = [(number, place) for number in range(len(buffer.steps(place)))]
            samples = buffer.sample(len(buffer.told), env)
        else:
            with monkeypatch.context() as patch:
                patch.setattr(np.random, "randint", _always(place))
                first = buffer.pos if buffer.full else 0
                numbers = (np.arange(buffer.size()) + first) % buffer.buffer_size
                samples = buffer._get_samples(numbers, env)
        parts = []
        for part in samples:
            for tensor in part.values() if isinstance(part, dict) else [part]:
                if tensor is not None:
                    parts.append((str(tensor.dtype), tensor.reshape(len(tensor), -1).numpy()))
        names = "".join(name for name, _ in parts).encode()
        rows = zip(*(array for _, array in parts), strict=True)
        found.append([names + b"".join(one.tobytes() for one in row) for row in rows])
    return found


def _always(place: int) -> Any:
    return lambda *_, size, **__: np.full(size, place)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("observed", [BOX, DICT, NORMAL], ids=["box", "dict", "normal"])
@pytest.mark.parametrize("handled", [True, False])
def test_at_every_moment_the_same_steps_can_be_sampled(
    observed: Any, n_steps: int, n_envs: int, handled: bool, monkeypatch: Any
) -> None:
    """Bit for bit, with next observations, returns and discounts, before and after it is full."""
    env = None
    if observed is NORMAL:
        env = VecNormalize(make_vec_env("Pendulum-v1", n_envs, seed=0), clip_reward=1.0)
        env.reset()
        for _ in range(20):
            env.step(np.ones((n_envs, 1), np.float32))
        observed = env.observation_space
    own_class: Any = DictReplayBuffer if observed is DICT else ReplayBuffer
    options: Any = {"n_envs": n_envs, "handle_timeout_termination": handled, "device": "cpu"}
    if n_steps > 1:
        if observed is DICT:
            pytest.skip("their own has no returns over n steps of dictionaries")
        own_class, options = NStepReplayBuffer, {**options, "n_steps": n_steps, "gamma": 0.9}
    own = own_class(400 * n_envs, observed, ACTIONS["box"], **options)
    with_ours = Numbered(400 * n_envs, observed, ACTIONS["box"], **options)
    stream = Stream(observed, ACTIONS["box"], n_envs)
    for number in range(1, 1001):
        step = stream.step()
        own.add(*step)
        with_ours.add(*step)
        if number in (1, 2, 5) or number % 83 == 0:
            theirs = contents(own, env, monkeypatch)
            ours = contents(with_ours, env, monkeypatch)
            for mine, other in zip(ours, theirs, strict=True):
                # Whole sequences go: the newest are always there, the oldest go a little sooner.
                assert len(mine) >= min(number, 400) - 4 * 25 // 2
                assert mine == other[len(other) - len(mine) :]
                assert max(Counter(mine).values()) == 1
                if number <= 350:
                    assert len(mine) == len(other) == number
    assert with_ours.table.check() == []
    with_ours.close()


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize(("algorithm", "environment"), [(DQN, "CartPole-v1"), (SAC, "Pendulum-v1")])
def test_with_the_same_draws_the_same_is_learned(
    algorithm: Any, environment: str, n_steps: int, n_envs: int
) -> None:
    learned = []
    for buffer_class in (NStepReplayBuffer if n_steps > 1 else ReplayBuffer, Numbered):
        model = algorithm(
            "MlpPolicy",
            make_vec_env(environment, n_envs, seed=0),
            replay_buffer_class=buffer_class,
            replay_buffer_kwargs={"n_steps": n_steps, "gamma": 0.99} if n_steps > 1 else {},
            learning_starts=50,
            buffer_size=5_000,
            train_freq=8,
            gradient_steps=2,
            policy_kwargs={"net_arch": [32]},
            seed=0,
            device="cpu",
        )
        model.learn(450)
        learned.append(torch.cat([p.flatten() for p in model.policy.parameters()]))
        if buffer_class is Numbered:
            model.replay_buffer.close()
    assert torch.equal(*learned)


def test_n_steps_that_cannot_be_are_refused() -> None:
    with pytest.raises(SpecError, match="n_steps is 5 and buffer_size 30.*at least 40"):
        sb3.ShmReplayBuffer(30, BOX, ACTIONS["discrete"], n_envs=2, n_steps=5)
    with pytest.raises(SpecError, match="n_steps is 0"):
        sb3.ShmReplayBuffer(30, BOX, ACTIONS["discrete"], n_steps=0)


def test_arguments_of_others_are_refused() -> None:
    with pytest.raises(SpecError, match="goal_selection_strategy is an argument of HerReplayBuff"):
        sb3.ShmReplayBuffer(30, DICT, ACTIONS["discrete"], goal_selection_strategy="future")
    with pytest.raises(SpecError, match=r"colour is no argument of .*; leave it out, or give"):
        sb3.ShmReplayBuffer(30, DICT, spaces.Discrete(2), colour=1)
