"""Sequences, samples and look-ups that cannot be: each error by its text, the table unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    CapacityError,
    DuplicateIdentityError,
    EmptyTableError,
    NoWindowError,
    SequenceError,
    ShmTableError,
    SpecError,
    TagColumn,
    UnknownIdentityError,
    WaitTimeoutError,
)
from tests.table.snapshots import everything
from tests.tables import small_columns, small_sequence


@pytest.fixture
def table(make_table: Callable[..., ArrayMemoryTable]) -> Iterator[ArrayMemoryTable]:
    """Sequences 1 to 3, of 5 steps; nothing that a test does may change it."""
    table = make_table(columns=[*small_columns(), TagColumn("kind", (2,), "int16")], maxlen=100)
    for identity in (1, 2, 3):
        table.add_sequence(identity, sequence())
    before = everything(table)
    assert before["findings"] == []
    yield table
    assert everything(table) == before


def sequence(length: int = 5, **changes: Any) -> dict[str, Any]:
    """One that fits, but for the changes; None leaves a column out."""
    whole = {**small_sequence(1, length), "kind": [1, 2], **changes}
    return {name: value for name, value in whole.items() if value is not None}


ROWS = "give 5, or 6 with the value after the last transition"

BAD_SEQUENCES: dict[str, tuple[Any, str]] = {
    "missing column": (
        sequence(obs=None),
        "column 'obs': missing from the sequence, which has actions, rewards, kind; give every "
        "stored column and tag",
    ),
    "missing length key": (
        sequence(actions=None),
        "column 'actions': missing from the sequence, which has obs, rewards, kind; give every "
        "stored column and tag",
    ),
    "missing tag": (
        sequence(kind=None),
        "column 'kind': missing from the sequence, which has obs, actions, rewards; give every "
        "stored column and tag",
    ),
    "no columns": (
        {},
        "column 'obs': missing from the sequence, which has no columns; give every stored column "
        "and tag",
    ),
    "unknown column": (
        sequence(speed=[1, 2, 3, 4, 5]),
        "column 'speed': the table has no such column; it stores obs, actions, rewards, kind",
    ),
    "virtual column": (
        sequence(next_obs=np.zeros((5, 3))),
        "column 'next_obs': given in the sequence, but it is computed from 'obs'; leave it out",
    ),
    "misshapen steps": (
        sequence(obs=np.zeros((6, 4), np.float32)),
        "column 'obs': step shape is (4,), declared (3,); pass arrays of shape (steps, 3) or "
        "declare shape=(4,)",
    ),
    "scalar for a vector": (
        sequence(obs=np.zeros(6, np.float32)),
        "column 'obs': step shape is (), declared (3,); pass arrays of shape (steps, 3) or "
        "declare shape=()",
    ),
    "vector for a scalar": (
        sequence(rewards=np.zeros((5, 1), np.float32)),
        "column 'rewards': step shape is (1,), declared (); pass arrays of shape (steps,) or "
        "declare shape=(1,)",
    ),
    "no steps axis": (
        sequence(rewards=3.0),
        "column 'rewards': is a single value, not one row per transition; pass an array of shape "
        "(steps,)",
    ),
    "observations one row short": (
        sequence(obs=np.zeros((5, 3), np.float32)),
        "column 'obs': has 5 rows, but 'actions' says the sequence has 5 transitions; give 6: "
        "'next_obs' looks 1 ahead",
    ),
    "observations one row long": (
        sequence(obs=np.zeros((7, 3), np.float32)),
        "column 'obs': has 7 rows, but 'actions' says the sequence has 5 transitions; give 6: "
        "'next_obs' looks 1 ahead",
    ),
    "too few rows": (
        sequence(rewards=np.zeros(4, np.float32)),
        f"column 'rewards': has 4 rows, but 'actions' says the sequence has 5 transitions; {ROWS}",
    ),
    "too many rows": (
        sequence(rewards=np.zeros(7, np.float32)),
        f"column 'rewards': has 7 rows, but 'actions' says the sequence has 5 transitions; {ROWS}",
    ),
    "empty": (
        sequence(0),
        "column 'actions': has 0 rows, so the sequence has no transition; give at least 1 rows",
    ),
    "too long": (
        sequence(101),
        "sequence has 101 transitions, the table holds at most 100 (maxlen); split it or resize "
        "the table",
    ),
    "loss of information": (
        sequence(actions=np.zeros(5)),
        "column 'actions': float64 values would lose information as int64; round it first, or "
        "declare dtype=float64",
    ),
    "out of range": (
        sequence(kind=[1, 99999]),
        "column 'kind': 99999 does not fit into int16; bring the values into its range, or "
        "declare dtype=int64",
    ),
    "misshapen tag": (
        sequence(kind=[1, 2, 3]),
        "column 'kind': tag has shape (3,), declared (2,); pass one value of shape (2,) per "
        "sequence, or at least one in an array of shape (values, 2)",
    ),
    "text": (
        sequence(rewards=["a"] * 5),
        "column 'rewards': holds <U1, declared float32; pass numbers or bools",
    ),
    "not a mapping": (
        [1, 2],
        "a sequence is a list; give a mapping of column name to rows",
    ),
}


@pytest.mark.parametrize("case", BAD_SEQUENCES)
def test_a_sequence_that_does_not_fit(table: ArrayMemoryTable, case: str) -> None:
    bad, message = BAD_SEQUENCES[case]
    with pytest.raises(SequenceError) as caught:
        table.add_sequence(9, bad)
    assert str(caught.value) == message


@pytest.mark.parametrize("case", BAD_SEQUENCES)
def test_one_that_does_not_fit_keeps_all_of_a_batch_out(table: ArrayMemoryTable, case: str) -> None:
    bad, message = BAD_SEQUENCES[case]
    with pytest.raises(SequenceError) as caught:
        table.add_sequences([(7, sequence()), (8, bad), (9, sequence())])
    assert str(caught.value) == message


def test_steps_that_form_no_array(table: ArrayMemoryTable) -> None:
    with pytest.raises(
        SequenceError, match=r"^column 'obs': its steps do not form one array \(.*\); give every "
    ):
        table.add_sequence(9, sequence(obs=[[1, 2, 3], [1, 2]]))


def test_the_callers_sequence_is_not_changed(table: ArrayMemoryTable) -> None:
    given = sequence(speed=1)
    values = dict(given)
    with pytest.raises(SequenceError):
        table.add_sequence(9, given)
    assert list(given) == list(values)
    assert all(given[name] is values[name] for name in given)


TAKEN = (
    "identity 2 is already in the table: an identity may be added once; use another, "
    "remove(identity) first, or make the table with on_duplicate='replace'"
)


def test_an_identity_that_is_in_the_table(table: ArrayMemoryTable) -> None:
    with pytest.raises(DuplicateIdentityError) as caught:
        table.add_sequence(2, sequence())
    assert str(caught.value) == TAKEN
    assert caught.value.identity == 2  # type: ignore[attr-defined]


def test_a_batch_with_an_identity_that_is_in_the_table(table: ArrayMemoryTable) -> None:
    with pytest.raises(DuplicateIdentityError) as caught:
        table.add_sequences([(7, sequence()), (8, sequence()), (2, sequence())])
    assert str(caught.value) == TAKEN


def test_a_batch_with_one_identity_twice(table: ArrayMemoryTable) -> None:
    with pytest.raises(DuplicateIdentityError) as caught:
        table.add_sequences([(7, sequence()), (8, sequence()), (7, sequence())])
    assert str(caught.value) == (
        "identity 7 occurs twice among the sequences given; give each its own"
    )


BAD_IDENTITIES: list[tuple[Any, str]] = [
    ("x", "identity is 'x', a str; give an integer"),
    (1.0, "identity is 1.0, a float; give an integer"),
    (None, "identity is None, a NoneType; give an integer"),
    (2**63, "identity is 9223372036854775808; give one that fits into 64 bits, signed"),
    (-(2**63) - 1, "identity is -9223372036854775809; give one that fits into 64 bits, signed"),
]


@pytest.mark.parametrize(("identity", "message"), BAD_IDENTITIES)
def test_an_identity_that_is_no_int64(table: ArrayMemoryTable, identity: Any, message: str) -> None:
    for call in (
        lambda: table.add_sequence(identity, sequence()),
        lambda: table.add_sequences([(7, sequence()), (identity, sequence())]),
        lambda: table.remove(identity),
        lambda: table.sequence(identity),
    ):
        with pytest.raises(SpecError) as caught:
            call()
        assert str(caught.value) == message


def test_an_identity_that_is_not_in_the_table(table: ArrayMemoryTable) -> None:
    for call in (table.remove, table.sequence):
        with pytest.raises(UnknownIdentityError) as caught:
            call(9)
        assert str(caught.value) == (
            "identity 9 is not in the table; identities() lists those that are"
        )


LONGEST = (
    "sequence_length is 6, the longest of 3 sequences has 5 transitions; ask for shorter windows, "
    "add longer sequences, or make the table with pad='zero' or pad='edge'"
)
BAD_SAMPLES: list[tuple[Any, Any, type[ShmTableError], str]] = [
    (0, 1, SpecError, "count is 0; give at least 1"),
    (-3, 1, SpecError, "count is -3; give at least 1"),
    (1.5, 1, SpecError, "count is 1.5, a float; give an integer"),
    (1, 0, SpecError, "sequence_length is 0; give at least 1"),
    (1, "2", SpecError, "sequence_length is '2', a str; give an integer"),
    (4, 6, NoWindowError, LONGEST),
]


@pytest.mark.parametrize(("count", "steps", "kind", "message"), BAD_SAMPLES)
def test_a_sample_that_cannot_be(
    table: ArrayMemoryTable, count: Any, steps: Any, kind: type[ShmTableError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        table.sample(count, steps)
    assert str(caught.value) == message


def test_a_sample_that_did_not_come_in_time(table: ArrayMemoryTable) -> None:
    with pytest.raises(WaitTimeoutError) as caught:
        table.sample(4, 6, timeout_s=0.01)
    assert str(caught.value) == (
        "waited 0.01 s for something to sample: sequence_length is 6, the longest of 3 sequences "
        "has 5 transitions; no other process has the table open: see whether the others run, "
        "and were passed it"
    )


@pytest.mark.parametrize("cleared", [False, True])
def test_a_sample_of_nothing(make_table: Callable[..., ArrayMemoryTable], cleared: bool) -> None:
    empty = make_table()
    if cleared:
        empty.add_sequence(1, small_sequence(1, 5))
        empty.clear()
    with pytest.raises(EmptyTableError) as caught:
        empty.sample(1, 1)
    assert str(caught.value) == (
        "the table is empty; add a sequence first, or pass timeout_s to wait for one"
    )


BAD_SIZES: list[tuple[Any, type[ShmTableError], str]] = [
    (
        99,
        CapacityError,
        "new_size is 99, smaller than maxlen, 100; a table can only grow: make a smaller one, or "
        "remove sequences",
    ),
    (
        1601,
        CapacityError,
        "new_size is 1601, but address space was taken for 1600 transitions (16 times the first "
        "maxlen); make a new table of that size",
    ),
    (0, SpecError, "new_size is 0; give at least 1"),
    (1e3, SpecError, "new_size is 1000.0, a float; give an integer"),
]


@pytest.mark.parametrize(("size", "kind", "message"), BAD_SIZES)
def test_a_size_that_cannot_be(
    table: ArrayMemoryTable, size: Any, kind: type[ShmTableError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        table.resize(size)
    assert str(caught.value) == message


def test_tensors_are_refused_like_arrays(table: ArrayMemoryTable) -> None:
    with pytest.raises(SequenceError, match=r"^column 'obs': step shape is \(4,\), declared "):
        table.add_sequence(9, sequence(obs=torch.zeros(6, 4)))
    with pytest.raises(SequenceError, match="^column 'actions': float32 values would lose "):
        table.add_sequence(9, sequence(actions=torch.zeros(5)))
