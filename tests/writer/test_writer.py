"""Steps become the sequences they are of, whatever form they have, and are named."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    Column,
    NextNElementWrapper,
    SequenceError,
    SpecError,
    VirtualColumn,
)
from tests.table.snapshots import content
from tests.tables import small_sequence
from tests.writer.episodes import MakeTable, play, steps_of, values


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 129, 1000])
def test_steps_become_the_sequence_they_are_of(make_table: MakeTable, length: int) -> None:
    table = make_table()
    with table.writer(identity=7) as writer:
        assert play(writer, 7, length) == [7]
    assert content(table) == {7: values(small_sequence(7, length))}


def test_memory_is_used_again_and_earlier_sequences_stay(make_table: MakeTable) -> None:
    table = make_table()
    with table.writer(identity=0) as writer:
        for number, length in enumerate((5, 1, 90, 70, 2)):
            assert len(writer) == 0
            assert play(writer, number, length) == [number]
    lengths = enumerate((5, 1, 90, 70, 2))
    assert content(table) == {n: values(small_sequence(n, length)) for n, length in lengths}


def test_what_was_appended_may_change_afterwards(make_table: MakeTable) -> None:
    table = make_table()
    obs = np.zeros(3, np.float32)
    with table.writer() as writer:
        for step in range(3):
            obs[:] = step
            writer.append(obs=obs, actions=step, rewards=0.0)
        obs[:] = 3
        (identity,) = writer.end(obs=obs)
        obs[:] = 9
    assert table.sequence(identity)["obs"][:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "spell",
    [
        lambda value: value,
        lambda value: value.tolist(),
        torch.as_tensor,
        lambda value: torch.as_tensor(value).requires_grad_() if value.ndim else float(value),
        lambda value: value.astype(np.float64) if value.dtype.kind == "f" else value,
        lambda value: np.asarray(value)[...],
    ],
)
def test_every_spelling_of_a_value_is_taken(make_table: MakeTable, spell: Any) -> None:
    table, sequence = make_table(), small_sequence(3, 4)
    with table.writer(identity=3) as writer:
        for step in steps_of(sequence):
            writer.append(**{n: v if n == "actions" else spell(v) for n, v in step.items()})
        writer.end(obs=spell(sequence["obs"][4]))
    assert content(table) == {3: values(sequence)}


def test_columns_that_nobody_looks_ahead_in_may_bring_one_more(make_table: MakeTable) -> None:
    table = make_table()
    with table.writer(identity=1) as writer:
        writer.append(obs=[1, 2, 3], actions=4, rewards=5)
        writer.end(obs=[6, 7, 8], rewards=9)
    assert table.sequence(1)["rewards"].tolist() == [5, 9]
    assert table.sequence(1)["actions"].tolist() == [4]


def test_more_than_one_row_looked_ahead(make_table: MakeTable) -> None:
    columns = [
        Column("actions", (), "int64"),
        Column("obs", (2,), "float32"),
        VirtualColumn("later", (2,), "float32", "obs", NextNElementWrapper.with_n(3)),
    ]
    table = make_table(columns=columns)
    with table.writer(identity=1) as writer:
        writer.append(actions=0, obs=[0, 0])
        with pytest.raises(SequenceError, match="has 2 rows after the last step; give 3"):
            writer.end(obs=np.ones((2, 2)))
        writer.end(obs=[[1, 1], [2, 2], [3, 3]])
    assert table.sequence(1)["obs"][:, 0].tolist() == [0, 1, 2, 3]


def test_made_up_identities_are_negative_and_all_different(make_table: MakeTable) -> None:
    table = make_table()
    with table.writer() as one, table.writer() as other:
        made = [
            identity
            for number in range(20)
            for w in (one, other)
            for identity in play(w, number, 3)
        ]
    with pickle.loads(pickle.dumps(table)) as again, again.writer() as third:
        made += [identity for number in range(20) for identity in play(third, number, 3)]
    assert len(set(made)) == 60 and max(made) < 0
    assert table.identities().tolist() == made


@pytest.mark.parametrize("on_duplicate", ["error", "replace"])
def test_made_up_identities_take_nobodys_place(make_table: MakeTable, on_duplicate: str) -> None:
    table = make_table(on_duplicate=on_duplicate)
    taken = list(range(-40, 40))
    for identity in taken:
        table.add_sequence(identity, small_sequence(identity, 2))
    with table.writer() as writer:
        made = [identity for number in range(20) for identity in play(writer, number, 3)]
    assert not set(made) & set(taken)
    assert table.identities().tolist() == taken + made
    assert content(table)[-1] == values(small_sequence(-1, 2))


def test_a_restored_table_s_identities_are_met_again(make_table: MakeTable, tmp_path: Any) -> None:
    table = make_table()
    with table.writer() as writer:
        made = [play(writer, number, 2)[0] for number in range(200)]
    table.store(str(tmp_path / "file"))
    other = make_table()
    other.restore(str(tmp_path / "file"))
    with other.writer() as writer:
        made += [play(writer, number, 2)[0] for number in range(200)]
    assert len(set(made)) == 400
    assert other.identities().tolist() == made


def test_given_identities_count_on(make_table: MakeTable) -> None:
    table = make_table()
    table.add_sequence(12, small_sequence(12, 2))
    with table.writer(identity=10) as writer:
        assert [play(writer, number, 1) for number in range(2)] == [[10], [11]]
        with pytest.raises(SequenceError, match="12"):
            play(writer, 5, 2)
        assert len(writer) == 2
        table.remove(12)
        assert writer.end(obs=small_sequence(5, 2)["obs"][2]) == [12]
    with table.writer(identity=2**63 - 1) as writer:
        assert play(writer, 1, 1) == [2**63 - 1]
        with pytest.raises(SpecError, match="64 bits"):
            play(writer, 1, 1)
        writer.drop()
