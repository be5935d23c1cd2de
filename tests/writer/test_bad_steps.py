"""Bad input changes nothing: neither the table nor the open episode."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import numpy as np
import pytest

from shmtable import (
    JointTable,
    SequenceError,
    SpecError,
)
from tests.table.snapshots import content, everything
from tests.tables import small_sequence
from tests.writer.episodes import MakeTable, steps_of, values

GOOD = {"obs": np.zeros(3, np.float32), "actions": 1, "rewards": 0.5}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rewards": None}, r"'rewards': holds object, declared float32"),
        ({"obs": np.zeros(4, np.float32)}, r"'obs': step has shape \(4,\), declared \(3,\)"),
        ({"obs": np.zeros((1, 3), np.float32)}, r"'obs': step has shape \(1, 3\)"),
        ({"actions": 1.5}, r"'actions': float64 values would lose information as int64"),
        ({"actions": np.float32(1)}, r"'actions': float32 values would lose information"),
        ({"actions": 2**63}, r"'actions': 9223372036854775808 does not fit into int64"),
        ({"rewards": 1e39}, r"'rewards': 1e\+39 does not fit into float32"),
        ({"rewards": np.float64(-1e39)}, r"'rewards': -1e\+39 does not fit into float32"),
        ({"rewards": [1.0, 2.0]}, r"'rewards': step has shape \(2,\), declared \(\)"),
        ({"reward": 1.0}, r"'reward': is no column of a step; a step has obs, actions, rewards"),
        ({"next_obs": np.zeros(3)}, r"'next_obs': is no column of a step"),
        ({"rewards": ...}, r"'rewards': .*declared float32"),
        (("actions",), r"'actions': missing from the step, which has obs, rewards"),
        (("obs", "actions", "rewards"), r"'obs': missing from the step, which has no columns"),
    ],
)
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_bad_step_changes_nothing(
    make_table: MakeTable, steps: int, wrong: Any, message: str
) -> None:
    table, sequence = make_table(), small_sequence(1, 3)
    bad = (
        {**GOOD, **wrong}
        if isinstance(wrong, dict)
        else {name: value for name, value in GOOD.items() if name not in wrong}
    )
    with table.writer(identity=1) as writer:
        for step in itertools.islice(steps_of(sequence), steps):
            writer.append(**step)
        before = everything(table)
        with pytest.raises(SequenceError, match=message):
            writer.append(**bad)
        assert everything(table) == before and len(writer) == steps
        for step in steps_of(sequence, steps):
            writer.append(**step)
        writer.end(obs=sequence["obs"][3])
    assert content(table) == {1: values(sequence)}


@pytest.mark.parametrize(
    ("final", "message"),
    [
        ({}, r"'obs': 'next_obs' needs what came after the last step; give it to end\(\) as obs="),
        ({"obs": [1, 2]}, r"'obs': step has shape \(2,\)"),
        ({"obs": [1, 2, 3], "reward": 1}, r"'reward': the table has no such tag; it has none"),
        ({"obs": [1, 2, 3], "dones": True}, r"'dones': the table has no such tag"),
        ({"obs": [1, 2, 3], "actions": 0.5}, r"'actions': float64 values would lose"),
        ({"obs": [1, 2, 3], "terminated": "no"}, r"terminated is 'no'"),
    ],
)
def test_a_bad_end_changes_nothing(make_table: MakeTable, final: Any, message: str) -> None:
    table, sequence = make_table(), small_sequence(1, 3)
    with table.writer(identity=1) as writer:
        for step in steps_of(sequence):
            writer.append(**step)
        before = everything(table)
        with pytest.raises(SequenceError, match=message):
            writer.end(**final)
        assert everything(table) == before and len(writer) == 3
        writer.end(obs=sequence["obs"][3])
    assert content(table) == {1: values(sequence)}


def test_an_end_needs_a_step(make_table: MakeTable) -> None:
    with make_table().writer() as writer, pytest.raises(SequenceError, match="has no step yet"):
        writer.end(obs=[1, 2, 3])


@pytest.mark.parametrize(
    "options",
    [
        {"identity": 1.5},
        {"identity": 2**63},
        {"chunk": 0},
        {"chunk": 1001},
        {"overlap": 1},
        {"chunk": 3, "overlap": 3},
        {"chunk": 3, "overlap": -1},
        {"unfinished": "keep"},
    ],
)
def test_options_that_cannot_be(make_table: MakeTable, options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="; (give|less)| give "):
        make_table().writer(**options)
    gc.collect()  # what was never made has nothing to finish


def test_a_joint_table_is_not_written_to(make_table: MakeTable) -> None:
    joint = JointTable([(1.0, make_table())])
    for make in (joint.writer, joint.vector_writer):
        with pytest.raises(SpecError, match=r"only sampled from; make the writer of one of its"):
            make()
