"""Beside real vector environments of Gymnasium: the same sequences as from a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from shmtable import (
    ArrayMemoryTable,
    Column,
    DictObsMemoryTable,
    NextElementMapper,
    SequenceError,
    TagColumn,
    VirtualColumn,
)

MakeTable = Callable[..., ArrayMemoryTable]
COUNT = 4
CALLS = 90
SEED = 11
LIMIT = 14  # the pole falls before and after it
COLUMNS = [
    Column("obs", (4,), "float32"),
    VirtualColumn("next_obs", (4,), "float32", "obs", NextElementMapper),
    Column("actions", (), "int64"),
    Column("rewards", (), "float32"),
    Column("terminated", (), bool),
    TagColumn("truncated", (), bool),
    TagColumn("environment", (), "int64"),
]
Episode = dict[str, list[Any]]


def make() -> gymnasium.Env[Any, Any]:
    return gymnasium.make("CartPole-v1", max_episode_steps=LIMIT)


def choose(obs: Any) -> Any:
    """An action for each observation [..., 4], told by nothing else."""
    return (np.abs(np.asarray(obs, np.float64)).sum(-1) * 1e4).astype(np.int64) % 3 // 2


def plain(place: int, steps: int) -> list[Episode]:
    """The episodes of one environment that end within so many steps."""
    environment, episodes = make(), []
    obs, _ = environment.reset(seed=SEED + place)
    observed, actions, rewards = [obs], [], []
    for _ in range(steps):
        actions.append(int(choose(obs)))
        obs, reward, terminated, truncated, _ = environment.step(actions[-1])
        observed.append(obs)
        rewards.append(float(reward))
        if terminated or truncated:
            episodes.append(
                {
                    "obs": np.stack(observed).tolist(),
                    "actions": actions,
                    "rewards": rewards,
                    "terminated": [False] * (len(actions) - 1) + [bool(terminated)],
                    "truncated": bool(truncated),
                    "environment": place,
                }
            )
            obs, _ = environment.reset()
            observed, actions, rewards = [obs], [], []
    environment.close()
    return episodes


def collect(table: ArrayMemoryTable, envs: VectorEnv[Any, Any, Any], **options: Any) -> None:
    mode = envs.metadata["autoreset_mode"]
    tags = {"environment": range(COUNT)}
    with table.vector_writer(
        COUNT, autoreset=mode, tags=tags, unfinished="drop", **options
    ) as writer:
        obs, _ = envs.reset(seed=SEED)
        for _ in range(CALLS):
            actions = choose(obs)
            following, rewards, terminated, truncated, infos = envs.step(actions)
            writer.append(
                obs=obs,
                actions=actions,
                rewards=rewards,
                terminated=terminated,
                truncated=truncated,
                following=following,
                infos=infos,
            )
            obs = following
            ended = terminated | truncated
            if mode is AutoresetMode.DISABLED and ended.any():
                obs, _ = envs.reset(options={"reset_mask": ended})
    envs.close()


def found(table: ArrayMemoryTable, place: int) -> list[Episode]:
    sequences = map(table.sequence, table.identities().tolist())
    return [
        {name: column.tolist() for name, column in sequence.items()}
        for sequence in sequences
        if sequence["environment"] == place
    ]


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_same_sequences_as_from_a_plain_loop(
    make_table: MakeTable, mode: AutoresetMode
) -> None:
    table = make_table(columns=COLUMNS)
    collect(table, SyncVectorEnv([make] * COUNT, autoreset_mode=mode))
    ends = set()
    for place in range(COUNT):
        wanted, got = plain(place, CALLS), found(table, place)
        # A reset takes a call of its own in one mode, so that fewer episodes end.
        least = len(wanted) if mode is not AutoresetMode.NEXT_STEP else len(wanted) - 1
        assert 4 <= least <= len(got) <= len(wanted)
        assert got == wanted[: len(got)]
        ends.update((e["terminated"][-1], e["truncated"]) for e in got)
    assert ends >= {(True, False), (False, True)}
    batch = table.sample(200, 1)
    assert not np.array_equal(batch["obs"], batch["next_obs"])


def test_environments_in_processes(make_table: MakeTable) -> None:
    table = make_table(columns=COLUMNS)
    mode = AutoresetMode.SAME_STEP
    collect(table, AsyncVectorEnv([make] * COUNT, autoreset_mode=mode, context="fork"))
    for place in range(COUNT):
        assert found(table, place) == plain(place, CALLS)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(("chunk", "overlap"), [(1, 0), (5, 0), (5, 3), (LIMIT, 0)])
def test_cut_episodes(make_table: MakeTable, mode: AutoresetMode, chunk: int, overlap: int) -> None:
    table = make_table(columns=COLUMNS)
    envs = SyncVectorEnv([make] * COUNT, autoreset_mode=mode)
    collect(table, envs, chunk=chunk, overlap=overlap)
    for place in range(COUNT):
        got = found(table, place)
        wanted = [part for episode in plain(place, CALLS) for part in cut(episode, chunk, overlap)]
        # Of the episode that is still open, too, there are parts.
        same = min(len(got), len(wanted))
        assert same > 4 and got[:same] == wanted[:same]


def cut(episode: Episode, chunk: int, overlap: int) -> list[Episode]:
    length, first, parts = len(episode["actions"]), 0, []
    while True:
        last = min(first + chunk, length)
        parts.append(
            {
                "obs": episode["obs"][first : last + 1],
                **{name: episode[name][first:last] for name in ("actions", "rewards")},
                "terminated": episode["terminated"][first:last],
                "truncated": episode["truncated"] if last == length else True,
                "environment": episode["environment"],
            }
        )
        if last == length:
            return parts
        first += chunk - overlap


@pytest.mark.parametrize(
    ("mode", "told"),
    [(AutoresetMode.SAME_STEP, "next_step"), (AutoresetMode.NEXT_STEP, "same_step")],
)
def test_the_wrong_mode_is_noticed(make_table: MakeTable, mode: AutoresetMode, told: str) -> None:
    table = make_table(columns=COLUMNS)
    envs = SyncVectorEnv([make] * COUNT, autoreset_mode=mode)
    envs.metadata["autoreset_mode"] = told
    with pytest.raises(SequenceError, match=f"autoreset is '{told}' and .*final_obs is in infos"):
        collect(table, envs)
    envs.close()
    assert table.size() == 0


class Named(gymnasium.Env[Any, Any]):
    """Observations by name; counts the steps, and ends after as many as its seed says."""

    observation_space = gymnasium.spaces.Dict(
        {
            "place": gymnasium.spaces.Box(-1e6, 1e6, (2,), np.float32),
            "clock": gymnasium.spaces.Box(0, 1000, (), np.float32),
        }
    )
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.number, self.episode = seed, -1
        self.episode, self.clock = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.clock += 1
        ended = self.clock > (self.number + self.episode) % 5
        by_time = bool(self.episode % 2)
        return self._observation(), 1.0, ended and not by_time, ended and by_time, {}

    def _observation(self) -> Any:
        place = np.array([self.number, self.episode], np.float32)
        return {"place": place, "clock": np.array(self.clock, np.float32)}


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_observations_with_names(mode: AutoresetMode) -> None:
    envs = SyncVectorEnv([Named] * COUNT, autoreset_mode=mode)
    with DictObsMemoryTable(spaces=envs, use_terminal_column=True, maxlen=1000) as table:
        with table.vector_writer(COUNT, autoreset=mode, unfinished="drop") as writer:
            obs, _ = envs.reset(seed=20)
            for _ in range(60):
                following, rewards, terminated, truncated, infos = envs.step([0] * COUNT)
                writer.append(
                    **obs,
                    actions=[0] * COUNT,
                    rewards=rewards[:, None],
                    terminated=terminated,
                    truncated=truncated,
                    following=following,
                    infos=infos,
                )
                obs = following
        envs.close()
        sequences = list(map(table.sequence, table.identities().tolist()))
        assert len(sequences) > 30
        for sequence in sequences:
            number, episode = sequence["place"][0].tolist()
            steps = int(number + episode) % 5 + 1
            assert sequence["place"].tolist() == [[number, episode]] * (steps + 1)
            assert sequence["clock"].tolist() == list(range(steps + 1))
            assert sequence["actions"].shape == (steps,)
            assert sequence["terminal"] == episode % 2
        assert table.check() == []
