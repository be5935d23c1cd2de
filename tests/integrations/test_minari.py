"""Datasets into tables and back, in a folder of the test's own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")

from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from shmtable import Column, EmptyTableError, SequenceError, SpecError
from shmtable.integrations.gymnasium import EpisodeRecorder, columns_from_spaces
from shmtable.integrations.minari import add_dataset, columns_from_dataset, dataset_from_table
from tests.integrations.environments import Encoding, counting

# Minari asks for an author, a link to code and more.
pytestmark = pytest.mark.filterwarnings("ignore:.*None:UserWarning")


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Minari keeps its datasets in this test."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def filled(make_table, nested: bool, steps: int = 60):
    """A table of counted episodes, and their spaces."""
    environments = counting(3, AutoresetMode.SAME_STEP, nested)
    space, actions = environments.single_observation_space, environments.single_action_space
    table = make_table(
        columns=columns_from_spaces(space, actions), maxlen=10_000, length_key="rewards"
    )
    recorder = EpisodeRecorder(environments, table)
    observations = recorder.reset(seed=0)
    policy = partial(lambda _: environments.action_space.sample()) if nested else Encoding()
    for _ in range(steps):
        observations = recorder.step(policy(observations))
    environments.close()
    return table, space, actions


@pytest.mark.parametrize("nested", [False, True])
def test_a_table_goes_into_a_dataset_and_comes_back(make_table, nested: bool) -> None:
    table, *both = filled(make_table, nested, steps=300)
    count = table.stats().sequences
    assert count > 2 * 64  # more than are written at a time
    dataset_from_table(table, "counting/kept-v0", *both)
    dataset = minari.load_dataset("counting/kept-v0")
    assert dataset.total_episodes == count
    assert dataset.total_steps == len(table)
    assert dataset.observation_space == both[0]
    again = make_table(columns=columns_from_dataset(dataset), maxlen=10_000, length_key="rewards")
    assert [c.name for c in again.columns] == [c.name for c in table.columns]
    assert add_dataset(again, dataset) == count
    for one, other in zip(table.identities(), again.identities(), strict=True):
        before, after = table.sequence(one), again.sequence(other)
        for name, rows in before.items():
            torch.testing.assert_close(after[name], rows, rtol=0, atol=0)


def test_a_dataset_made_by_minari_is_read(make_table) -> None:
    space = spaces.Dict(
        {"image": spaces.Box(0, 255, (8, 8, 3), np.uint8), "at": spaces.Discrete(9)}
    )
    actions = spaces.Box(-1, 1, (2,), np.float32)
    episodes = [
        minari.data_collector.EpisodeBuffer(
            id=number,
            observations={
                "image": np.full((6, 8, 8, 3), number, np.uint8),
                "at": np.arange(6),
            },
            actions=np.full((5, 2), 0.5, np.float32),
            rewards=np.arange(5.0),
            terminations=np.arange(5) == 4,
            truncations=np.zeros(5, bool),
        )
        for number in range(4)
    ]
    dataset = minari.create_dataset_from_buffers(
        "made-v0", episodes, observation_space=space, action_space=actions, jpeg_encoding=False
    )
    columns = [c for c in columns_from_dataset(dataset) if c.name != "truncated"]
    table = make_table(columns=columns, maxlen=1000)
    assert add_dataset(table, dataset, first_identity=100, episodes=[1, 3]) == 2
    assert table.identities().tolist() == [101, 103]
    sample = table.sample(50, 2)
    assert set(sample["obs.image"].unique().tolist()) == {1, 3}
    assert (sample["next_obs.at"] == sample["obs.at"] + 1).all()
    assert (sample["rewards"] == sample["obs.at"]).all()
    assert (sample["terminated"] == (sample["obs.at"] == 4)).all()


def test_an_episode_that_does_not_fit_is_refused(make_table) -> None:
    table, *both = filled(make_table, False)
    dataset = dataset_from_table(table, "counting/kept-v0", *both)
    small = make_table(columns=columns_from_dataset(dataset), maxlen=3)
    with pytest.raises(SequenceError):
        add_dataset(small, dataset)


def test_what_is_no_table_of_episodes_is_refused(make_table, datasets: Path) -> None:
    box, actions = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)
    columns = columns_from_spaces(box, actions, next_observations=False)
    table = make_table(columns=columns)
    with pytest.raises(EmptyTableError, match="no sequences; add some"):
        dataset_from_table(table, "none-v0", box, actions)
    zeros = np.zeros(3)
    rest = {"rewards": zeros, "terminated": zeros > 0, "truncated": zeros > 0}
    table.add_sequence(1, {"obs": np.zeros((3, 2)), "actions": np.zeros(3, int), **rest})
    with pytest.raises(SpecError, match="sequence 1 has 3 rows of 'obs' for 3 steps"):
        dataset_from_table(table, "none-v0", box, actions)
    with pytest.raises(SpecError, match="no column 'obs.x', which an episode"):
        dataset_from_table(table, "none-v0", spaces.Dict({"x": box}), actions)
    fewer = make_table(columns=[Column("obs", (2,), "float32"), Column("actions", (), "int64")])
    with pytest.raises(SpecError, match="no column 'rewards'"):
        dataset_from_table(fewer, "none-v0", box, actions)
    assert list(datasets.iterdir()) == []
