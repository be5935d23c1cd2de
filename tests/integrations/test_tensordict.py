"""Samples as TensorDict, and trajectories out of one."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("tensordict")

from tensordict import TensorDict

from shmtable import (
    Column,
    DictObsAdaptor,
    NextElementMapper,
    PrioritizedSampleStrategy,
    SampleResult,
    SequenceError,
    SpecError,
    TagColumn,
    VirtualColumn,
)
from shmtable.integrations.tensordict import add_tensordict, as_tensordict

COLUMNS = [
    Column("obs.place", (3,), "float32"),
    VirtualColumn("next_obs.place", (3,), "float32", "obs.place", NextElementMapper()),
    Column("actions", (), "int64"),
    Column("state", (2,), "float32", first_only=True),
    TagColumn("task", (), "int64"),
]


def sequence(identity: int, steps: int) -> dict:
    place = torch.arange(steps + 1) + 100.0 * identity
    return {
        "obs.place": place[:, None].expand(-1, 3),
        "actions": torch.arange(steps),
        "state": place[:steps, None].expand(-1, 2),
        "task": [identity],
    }


@pytest.mark.parametrize("layout", ["flat", "batch_time"])
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_sample_is_a_tensordict_of_windows(make_table, layout: str, length: int, count: int):
    table = make_table(columns=COLUMNS, layout=layout)
    for identity in (1, 2):
        table.add_sequence(identity, sequence(identity, 10))
    sample = table.sample(count, length)
    made = as_tensordict(table, sample)
    assert made.batch_size == (count, length)
    start = torch.from_numpy(sample.points.offsets)[:, None] + torch.arange(length)
    torch.testing.assert_close(made["actions"], start)
    place = made["obs", "place"][..., 0]
    torch.testing.assert_close(place, start + 100.0 * made["task"])
    torch.testing.assert_close(made["next_obs", "place"][..., 0], place + 1)
    assert made["task"].tolist() == [[i] * length for i in sample.points.identities]
    torch.testing.assert_close(made["state"][..., 0], place[:, :1].expand(-1, length))
    assert made["actions"].data_ptr() == sample["actions"].data_ptr()


def test_entries_may_have_other_names_and_weights_come_along(make_table) -> None:
    table = make_table(columns=COLUMNS, sampler=PrioritizedSampleStrategy())
    table.add_sequence(1, sequence(1, 10), priority=2.0)
    sample = table.sample(5, 3)
    keys = {"next_obs.place": ("next", "obs", "place"), "actions": "action"}
    made = as_tensordict(table, sample, keys)
    assert made["next", "obs", "place"].shape == (5, 3, 3)
    assert {"action", "priority_weight"} <= set(made.keys())
    assert made["priority_weight"].shape == (5, 3)


def test_what_adaptors_made_of_a_sample_stays_as_nested(make_table) -> None:
    table = make_table(columns=COLUMNS, adaptors=[DictObsAdaptor(["obs.place"], ["place"])])
    table.add_sequence(1, sequence(1, 10))
    made = as_tensordict(table, table.sample(2, 3))
    assert made["next_observation", "place"].shape == (2, 3, 3)


def _spoiled(result, count: int, sequence_length: int):
    result["odd"] = torch.zeros(count + 1)
    return result


def test_what_is_no_sample_of_windows_is_refused(make_table) -> None:
    table = make_table(columns=COLUMNS, adaptors=[_spoiled])
    table.add_sequence(1, sequence(1, 10))
    with pytest.raises(
        SpecError, match=r"'odd' of the sample is \(5,\), with no row for each of 4"
    ):
        as_tensordict(table, table.sample(4, 3))
    with pytest.raises(SpecError, match="the sample has 0 windows and the columns x; give one"):
        as_tensordict(table, SampleResult({"x": torch.zeros(3)}))


def trajectory(identity: int, steps: int) -> TensorDict:
    flat = sequence(identity, steps)
    return TensorDict(
        {
            "obs": {"place": flat["obs.place"][:-1]},
            "act": flat["actions"],
            "state": flat["state"],
            "task": torch.full((steps,), identity),
            "unused": torch.zeros(steps),
            "next": {"obs": {"place": flat["obs.place"][1:]}},
        },
        batch_size=[steps],
    )


def test_a_trajectory_becomes_a_sequence(make_table) -> None:
    table = make_table(columns=COLUMNS)
    add_tensordict(table, 5, trajectory(5, 7), {"actions": "act"})
    expected = sequence(5, 7)
    found = table.sequence(5)
    for name in ("obs.place", "actions", "state"):
        torch.testing.assert_close(found[name], expected[name])
    assert int(found["task"]) == 5


def test_a_trajectory_that_does_not_fit_changes_nothing(make_table) -> None:
    table = make_table(columns=COLUMNS)
    keys = {"actions": "act"}
    with pytest.raises(SequenceError, match=r"batch size \(2, 3\); give one of shape"):
        add_tensordict(table, 5, trajectory(5, 6).reshape(2, 3), keys)
    with pytest.raises(SequenceError, match=r"column 'actions': .* no tensor at \('actions',\)"):
        add_tensordict(table, 5, trajectory(5, 7))
    with pytest.raises(SequenceError, match=r"no tensor at \('next', 'obs', 'place'\)"):
        add_tensordict(table, 5, trajectory(5, 7).exclude("next"), keys)
    assert len(table) == 0
