"""Stable-Baselines3's algorithms with a buffer in shared memory, beside their own."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from shmtable import ArrayMemoryTable, EmptyTableError, SpecError
from shmtable.integrations.sb3 import ShmReplayBuffer
from tests.multiprocess.recipe import Crew

BOX = spaces.Box(-10, 10, (3,), np.float32)
DICT = spaces.Dict({"where": BOX, "which": spaces.Discrete(50), "bits": spaces.MultiBinary(4)})
ACTIONS = {
    "discrete": spaces.Discrete(4),
    "box": spaces.Box(-1, 1, (2,), np.float64),
    "many": spaces.MultiDiscrete([3, 4]),
}


@pytest.fixture
def make_buffer():
    """Makes buffers; checks and closes their tables afterwards."""
    made = []

    def make(*args: Any, **options: Any) -> ShmReplayBuffer:
        made.append(ShmReplayBuffer(*args, **options))
        return made[-1]

    yield make
    findings = [str(finding) for buffer in made for finding in buffer.table.check()]
    for buffer in made:
        buffer.close()
    assert findings == []


class Stream:
    """Steps as Stable-Baselines3 adds them: each goes on where the last one led."""

    def __init__(self, space: spaces.Space, action_space: spaces.Space, n_envs: int) -> None:
        self.spaces, self.n_envs = (space, action_space), n_envs
        for number, one in enumerate(self.spaces):
            one.seed(number)
        self.random = np.random.default_rng(0)
        self.observed = self._some(space)

    def _some(self, space: spaces.Space) -> Any:
        values = [space.sample() for _ in range(self.n_envs)]
        if isinstance(space, spaces.Dict):
            return {key: np.array([value[key] for value in values]) for key in space.spaces}
        return np.array(values)

    def step(self) -> tuple[Any, ...]:
        space, action_space = self.spaces
        now, later = self.observed, self._some(space)
        done = self.random.random(self.n_envs) < 0.1
        cut = done & (self.random.random(self.n_envs) < 0.5)
        infos = [{"TimeLimit.truncated": bool(one)} for one in cut]
        rewards = self.random.random(self.n_envs)
        self.observed = _where(done, self._some(space), later)
        return _copied(now), _copied(later), self._some(action_space), rewards, done, infos


def _copied(value: Any) -> Any:
    return {k: v.copy() for k, v in value.items()} if isinstance(value, dict) else value.copy()


def _where(done: Any, new: Any, old: Any) -> Any:
    if isinstance(new, dict):
        return {key: _where(done, new[key], old[key]) for key in new}
    return np.where(done.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def rows(samples: Any) -> set[bytes]:
    """Each transition of a sample as one value to compare."""
    parts = []
    for part in samples[:5]:
        for tensor in part.values() if isinstance(part, dict) else [part]:
            parts.append(tensor.double().reshape(len(tensor), -1).numpy())
    return {row.tobytes() for row in np.concatenate(parts, 1)}


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("observed", [BOX, spaces.Discrete(1000), DICT], ids=["box", "int", "dict"])
@pytest.mark.parametrize("acted", ACTIONS)
@pytest.mark.parametrize("handled", [True, False])
def test_samples_are_those_of_their_own_buffer(make_buffer, observed, acted, n_envs, handled):
    action_space = ACTIONS[acted]
    own_class = DictReplayBuffer if isinstance(observed, spaces.Dict) else ReplayBuffer
    options = {"n_envs": n_envs, "handle_timeout_termination": handled, "device": "cpu"}
    ours = make_buffer(900, observed, action_space, seed=1, **options)
    own = own_class(900, observed, action_space, **options)
    stream = Stream(observed, action_space, n_envs)
    for _ in range(100):
        step = stream.step()
        ours.add(*_args(step))
        own.add(*_args(step))
    assert (ours.size(), ours.pos, ours.full) == (own.size(), own.pos, own.full)
    theirs, mine = own.sample(10_000), ours.sample(10_000)
    assert rows(mine) == rows(theirs)
    assert len(rows(mine)) == 100 * n_envs
    assert type(mine) is type(theirs)
    for one, two in zip(_tensors(mine), _tensors(theirs), strict=True):
        assert (one.dtype, one.shape, one.device) == (two.dtype, two.shape, two.device)


def _args(step: tuple[Any, ...]) -> tuple[Any, ...]:
    return (_copied(step[0]), _copied(step[1]), *step[2:])


def _tensors(samples: Any) -> list[torch.Tensor]:
    parts = [list(p.values()) if isinstance(p, dict) else [p] for p in samples[:5]]
    return [tensor for part in parts for tensor in part]


def test_a_step_is_sampled_as_soon_as_it_is_added(make_buffer) -> None:
    buffer = make_buffer(10_000, BOX, ACTIONS["discrete"], n_envs=2, device="cpu")
    with pytest.raises(EmptyTableError):
        buffer.sample(1)
    stream = Stream(BOX, ACTIONS["discrete"], 2)
    for steps in range(1, 100):
        buffer.add(*stream.step())
        assert len(rows(buffer.sample(4000))) == 2 * steps


def test_observations_are_stored_once(make_buffer) -> None:
    buffer = make_buffer(100_000, BOX, ACTIONS["discrete"], device="cpu")
    stream = Stream(BOX, ACTIONS["discrete"], 1)
    for number in range(1000):
        now, later, action, reward, done, infos = stream.step()
        buffer.add(now, later, action, reward, done & False, infos)
        stream.observed = later
        if number % 4 == 0:
            buffer.sample(8)
    buffer.flush()
    sequences = [buffer.table.sequence(identity) for identity in buffer.table.identities()]
    assert sum(len(s["actions"]) for s in sequences) == 1000
    assert sum(len(s["obs"]) for s in sequences) == 1000 + -(-1000 // 32)


def test_steps_that_do_not_follow_each_other_are_kept_apart(make_buffer) -> None:
    buffer = make_buffer(1000, BOX, ACTIONS["discrete"], device="cpu")
    own = ReplayBuffer(1000, BOX, ACTIONS["discrete"], device="cpu")
    for number in range(50):
        now, later = np.full((1, 3), number, np.float32), np.full((1, 3), -number, np.float32)
        step = (now, later, np.array([1]), np.array([0.5]), np.array([False]), [{}])
        buffer.add(*step)
        own.add(*step)
    assert rows(buffer.sample(2000)) == rows(own.sample(2000))


@pytest.mark.parametrize("size", [1, 5, 10, 200])
@pytest.mark.parametrize("n_envs", [1, 4])
def test_a_full_buffer_keeps_the_newest(make_buffer, size: int, n_envs: int) -> None:
    buffer = make_buffer(size, BOX, ACTIONS["discrete"], n_envs=n_envs, device="cpu")
    own = ReplayBuffer(size, BOX, ACTIONS["discrete"], n_envs=n_envs, device="cpu")
    assert buffer.buffer_size == own.buffer_size
    stream = Stream(BOX, ACTIONS["discrete"], n_envs)
    for _ in range(2 * size + 3):
        step = stream.step()
        buffer.add(*step)
        own.add(*step)
        buffer.sample(2)
    assert (buffer.size(), buffer.full, buffer.pos) == (own.size(), own.full, own.pos)
    newest = rows(own.sample(20 * size * n_envs + 500))
    assert rows(buffer.sample(500)) <= newest
    # Whole sequences go, so up to that much less is kept.
    kept = len(buffer.table)
    assert kept <= own.buffer_size * n_envs
    assert kept >= own.buffer_size * n_envs * 14 // 16 - n_envs


def test_other_processes_see_what_was_flushed(make_buffer) -> None:
    for n_steps, seen in ((1, 40), (3, 36)):  # with 3, the last two of each wait for what follows
        options = {"n_envs": 2, "device": "cpu", "n_steps": n_steps}
        buffer = make_buffer(2000, BOX, ACTIONS["discrete"], **options)
        stream = Stream(BOX, ACTIONS["discrete"], 2)
        for _ in range(20):
            now, later, action, reward, done, infos = stream.step()
            buffer.add(now, later, action, reward, done & False, infos)
            stream.observed = later
        assert len(buffer.table) == 0
        buffer.flush()
        buffer.flush()
        assert len(buffer.table) == seen
        assert len(rows(buffer.sample(1000))) == 40


def test_it_says_what_is_in_it(make_buffer) -> None:
    buffer = make_buffer(1000, BOX, ACTIONS["discrete"], n_envs=2)
    assert repr(buffer).startswith("ShmReplayBuffer(<ArrayMemoryTable (unnamed): 0 of ")
    assert repr(buffer).endswith(", n_envs=2)")


def test_extend_and_reset(make_buffer) -> None:
    buffer = make_buffer(100, BOX, ACTIONS["discrete"], n_envs=2, device="cpu")
    steps = [Stream(BOX, ACTIONS["discrete"], 2).step() for _ in range(6)]
    buffer.extend(*zip(*steps, strict=True))
    assert buffer.size() == 6
    buffer.flush()
    assert len(buffer.table) == 12
    buffer.reset()
    assert (buffer.size(), len(buffer.table)) == (0, 0)
    with pytest.raises(EmptyTableError):
        buffer.sample(1)
    buffer.add(*steps[0])
    assert len(rows(buffer.sample(50))) == 2


def test_what_cannot_be_is_refused(make_buffer) -> None:
    with pytest.raises(SpecError, match="buffer_size is 0"):
        make_buffer(0, BOX, ACTIONS["discrete"])
    with pytest.raises(SpecError, match="no rows to take by number; call sample"):
        make_buffer(10, BOX, ACTIONS["discrete"])._get_samples(np.arange(3))


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_pickle_brings_the_content(make_buffer, unique_name, n_steps: int) -> None:
    options = {"n_envs": 2, "device": "cpu", "name": unique_name(), "n_steps": n_steps}
    buffer = make_buffer(500, DICT, ACTIONS["box"], **options)
    stream = Stream(DICT, ACTIONS["box"], 2)
    for _ in range(60):
        buffer.add(*stream.step())
    copy = pickle.loads(pickle.dumps(buffer))
    try:
        assert copy.name is None  # the name is taken by the first
        assert rows(copy.sample(5000)) == rows(buffer.sample(5000))
        copy.add(*stream.step())
        assert (copy.size(), buffer.size()) == (61, 60)
        assert len(rows(copy.sample(5000))) == 122
        assert copy.table.check() == []
    finally:
        copy.close()


def _sample(name: str) -> int:
    with ArrayMemoryTable.attach(name) as table:
        return len(set(table.sample(5000, 1)["rewards"].tolist()))


def test_other_processes_use_the_same_table(make_buffer, unique_name) -> None:
    name = unique_name()
    buffer = make_buffer(500, BOX, ACTIONS["discrete"], device="cpu", name=name)
    stream = Stream(BOX, ACTIONS["discrete"], 1)
    for _ in range(40):
        buffer.add(*stream.step())
    buffer.flush()
    with Crew("spawn") as crew:
        crew.add(_sample, name)
        crew.go()
        assert crew.results() == [40]


QUICK = {"learning_starts": 50, "buffer_size": 500, "seed": 0, "device": "cpu"}


@pytest.mark.parametrize("n_envs", [1, 2])
def test_dqn_trains_saves_and_goes_on(tmp_path, n_envs: int) -> None:
    environments = make_vec_env("CartPole-v1", n_envs, seed=0)
    made = DQN("MlpPolicy", environments, replay_buffer_class=ShmReplayBuffer, **QUICK)
    buffer = made.replay_buffer
    before = [p.detach().clone() for p in made.q_net.parameters()]
    made.learn(300)
    assert isinstance(buffer, ShmReplayBuffer)
    assert buffer.size() == made.num_timesteps // n_envs >= 300 // n_envs
    assert any((a != b).any() for a, b in zip(before, made.q_net.parameters(), strict=True))
    made.save_replay_buffer(tmp_path / "buffer")
    made.save(tmp_path / "model")
    again = DQN.load(tmp_path / "model", environments)
    again.load_replay_buffer(tmp_path / "buffer")
    loaded = again.replay_buffer
    assert isinstance(loaded, ShmReplayBuffer)
    assert loaded.size() == buffer.size()
    assert rows(loaded.sample(9000)) == rows(buffer.sample(9000))
    again.learn(100, reset_num_timesteps=False)
    assert loaded.size() == again.num_timesteps // n_envs
    for one in (buffer, loaded):
        assert one.table.check() == []
        one.close()


@pytest.mark.parametrize("optimize", [False, True])
def test_sac_trains_and_is_repeatable(optimize: bool) -> None:
    learned = []
    for _ in range(2):
        made = SAC(
            "MlpPolicy",
            make_vec_env("Pendulum-v1", 2, seed=0),
            replay_buffer_class=ShmReplayBuffer,
            optimize_memory_usage=optimize,
            **QUICK,
        )
        made.learn(150)
        learned.append(torch.cat([p.flatten() for p in made.policy.parameters()]))
        if optimize:
            with pytest.warns(UserWarning, match="last trajectory in the replay buffer"):
                made.learn(10)
        else:
            made.learn(10)
        made.replay_buffer.close()
    assert torch.equal(*learned)


def test_dictionary_observations_and_normalisation() -> None:
    environments = DummyVecEnv([lambda: SimpleMultiObsEnv(random_start=False)] * 2)
    made = DQN("MultiInputPolicy", environments, replay_buffer_class=ShmReplayBuffer, **QUICK)
    made.learn(200)
    sample = made.replay_buffer.sample(8)
    assert set(sample.observations) == {"img", "vec"}
    assert sample.observations["img"].dtype is torch.uint8
    made.replay_buffer.close()


def test_normalised_observations_and_rewards_are_those_of_their_own_buffer() -> None:
    environments = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0))
    made = SAC("MlpPolicy", environments, replay_buffer_class=ShmReplayBuffer, **QUICK)
    made.learn(120)
    space, actions = environments.observation_space, environments.action_space
    own = ReplayBuffer(500, space, actions, device="cpu", n_envs=2)
    ours = ShmReplayBuffer(500, space, actions, device="cpu", n_envs=2)
    stream = Stream(space, actions, 2)
    for _ in range(50):
        step = stream.step()
        own.add(*step)
        ours.add(*step)
    assert rows(own.sample(4000, environments)) == rows(ours.sample(4000, environments))
    made.replay_buffer.close()
    ours.close()


def test_every_transition_is_equally_likely_whatever_its_sequence(make_buffer) -> None:
    buffer = make_buffer(3000, BOX, ACTIONS["discrete"], n_envs=3, device="cpu", seed=4)
    stream = Stream(BOX, ACTIONS["discrete"], 3)
    for number in range(100):
        buffer.add(*stream.step())
        if number % 7 == 0:
            buffer.sample(1)
    rewards = torch.cat([buffer.sample(10_000).rewards for _ in range(6)])
    _, counts = rewards.unique(return_counts=True)
    assert len(counts) == 300
    chi_squared = float(((counts - 200) ** 2 / 200).sum())
    assert 220 < chi_squared < 380  # 299 degrees of freedom: some 3.3 deviations to either side


class Both(ShmReplayBuffer):
    """Gives what it is given to a buffer of their own too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.own = ReplayBuffer(*args, **options)

    def add(self, *args: Any) -> None:
        super().add(*args)
        self.own.add(*args)


@pytest.mark.parametrize(("algorithm", "environment"), [(DQN, "CartPole-v1"), (SAC, "Pendulum-v1")])
def test_in_training_it_holds_what_their_own_buffer_holds(algorithm, environment: str) -> None:
    options = {**QUICK, "buffer_size": 5000, "gradient_steps": 1, "train_freq": 8}
    environments = make_vec_env(environment, 2, seed=0)
    made = algorithm("MlpPolicy", environments, replay_buffer_class=Both, **options)
    made.learn(2000)  # ten time limits of Pendulum, some hundred falls of the pole
    buffer = made.replay_buffer
    ours, own = buffer.sample(40_000), buffer.own.sample(40_000)
    assert rows(ours) == rows(own)
    buffer.flush()
    assert len(rows(ours)) == len(buffer.table) == 2000
    assert bool(own.dones.any()) == (environment == "CartPole-v1")
    buffer.close()
