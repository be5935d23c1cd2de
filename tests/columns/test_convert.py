"""Sequences in: what is accepted, what it becomes, and every refusal by its text."""

from __future__ import annotations

import pickle
from collections import OrderedDict, UserDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from shmtable.columns import Column, Converter, Schema, TagColumn, VirtualColumn
from shmtable.errors import SequenceError
from shmtable.mappers import NextElementMapper, NextNElementWrapper, SyntheticDones

SCHEMA = Schema.build(
    [
        Column("obs", (2,), "float32"),
        VirtualColumn("next_obs", (2,), "float32", "obs", NextElementMapper),
        Column("actions", (), "int64"),
        Column("rewards", (), "float32"),
        VirtualColumn("dones", (), bool, "actions", SyntheticDones),
        TagColumn("terminal", (), "float32"),
    ],
    "actions",
)


def sequence(length: int = 3, **changes: Any) -> dict[str, Any]:
    """A sequence that fits, with some columns replaced (None: left out)."""
    columns = {
        "obs": np.arange(2.0 * (length + 1), dtype=np.float32).reshape(-1, 2),
        "actions": np.arange(length),
        "rewards": np.ones(length, np.float32),
        "terminal": 1.0,
    }
    columns.update(changes)
    return {name: value for name, value in columns.items() if value is not None}


def refusal(given: Any, schema: Schema = SCHEMA, maxlen: int = 100) -> SequenceError:
    with pytest.raises(SequenceError) as raised:
        Converter(schema, maxlen).prepare(given)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    return raised.value


def test_right_arrays_are_not_copied() -> None:
    given = sequence()
    prepared = Converter(SCHEMA, 100).prepare(given)
    assert prepared.length == 3
    assert prepared.span == 4
    assert prepared.extra == 0
    assert [id(rows) for rows in prepared.rows] == [
        id(given[name]) for name in ("obs", "actions", "rewards")
    ]
    assert prepared.tags[0].shape == ()
    assert prepared.tags[0] == 1.0


@pytest.mark.parametrize(
    "spell",
    [
        lambda array: array.tolist(),
        lambda array: list(array),
        lambda array: tuple(array.tolist()),
        lambda array: torch.from_numpy(array),
        lambda array: torch.from_numpy(array.astype(np.float64)).requires_grad_(),
        lambda array: list(torch.from_numpy(array)),
        lambda array: [torch.from_numpy(array[0]), *array[1:]],
        lambda array: array[::-1][::-1],
        lambda array: np.asfortranarray(array),
        lambda array: array.astype(">f4"),
        lambda array: array.astype(np.float64),
        lambda array: array.astype(np.int8),
        lambda array: np.ma.MaskedArray(array),  # type: ignore[no-untyped-call]
        lambda array: torch.from_numpy(array).to(torch.bfloat16),
        lambda array: torch.from_numpy(array.astype(np.uint16)),
    ],
)
def test_every_spelling_becomes_the_same_rows(spell: Any) -> None:
    array = np.arange(8, dtype=np.float32).reshape(4, 2)
    given = sequence(obs=spell(array))
    before = pickle.dumps(given)
    rows = Converter(SCHEMA, 100).prepare(given).rows[0]
    assert rows.dtype == np.float32
    assert rows.dtype.isnative
    assert np.array_equal(rows, array)
    assert pickle.dumps(given) == before


def test_arrays_for_a_type_numpy_lacks_are_numbers_not_bits() -> None:
    schema = Schema.build([Column("x", (), "bfloat16")], "x")
    (rows,) = Converter(schema, 10).prepare({"x": np.array([1, 2], np.uint16)}).rows
    assert torch.from_numpy(rows).view(torch.bfloat16).tolist() == [1.0, 2.0]


def test_conjugated_and_negated_tensors() -> None:
    schema = Schema.build([Column("z", (), "complex64"), Column("im", (), "float32")], "z")
    lazy = torch.tensor([1 + 2j, 3 - 4j]).conj()
    rows = Converter(schema, 10).prepare({"z": lazy, "im": lazy.imag}).rows
    assert rows[0].tolist() == [1 - 2j, 3 + 4j]
    assert rows[1].tolist() == [-2.0, 4.0]


@pytest.mark.parametrize("kind", [OrderedDict, UserDict, MappingProxyType])
def test_any_mapping(kind: Any) -> None:
    assert Converter(SCHEMA, 100).prepare(kind(sequence())).length == 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, 2.0),
        (2.5, 2.5),
        (True, 1.0),
        (np.float64(3), 3.0),
        (np.array(4.0), 4.0),
        (torch.tensor(5), 5.0),
        ([6.0], 6.0),
        (np.array([7.0, 8.0], np.float32), 7.0),
        ([torch.tensor(9.0)], 9.0),
    ],
)
def test_tags(value: Any, expected: float) -> None:
    (tag,) = Converter(SCHEMA, 100).prepare(sequence(terminal=value)).tags
    assert tag.dtype == np.float32
    assert tag.shape == ()
    assert tag == expected


def test_tags_with_a_shape() -> None:
    schema = Schema.build([Column("a", (), int), TagColumn("goal", (2,), "float32")], "a")
    for value in ([1.0, 2.0], [[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]):
        (tag,) = Converter(schema, 10).prepare({"a": [1], "goal": value}).tags
        assert tag.tolist() == [1.0, 2.0]
    error = refusal({"a": [1], "goal": 1.0}, schema)
    assert str(error) == (
        "column 'goal': tag has shape (), declared (2,); pass one value of shape (2,) per "
        "sequence, or at least one in an array of shape (values, 2)"
    )


def test_one_row_more_is_kept_and_noted() -> None:
    prepared = Converter(SCHEMA, 100).prepare(sequence(rewards=np.ones(4, np.float32)))
    assert prepared.extra == 0b100
    assert prepared.span == 4
    assert [len(rows) for rows in prepared.rows] == [4, 3, 4]


def test_without_a_look_ahead_one_row_more_is_the_observation_after_the_last_action() -> None:
    schema = Schema.build([Column("obs", (), float), Column("actions", (), int)], "actions")
    prepared = Converter(schema, 5).prepare({"obs": [0.0, 1.0], "actions": [0]})
    assert (prepared.length, prepared.span, prepared.extra) == (1, 2, 1)


def test_a_length_key_that_is_looked_ahead_in() -> None:
    schema = Schema.build(
        [
            Column("actions", (), int),
            Column("obs", (), int),
            VirtualColumn("next", (), int, "actions", NextNElementWrapper.with_n(2)),
        ],
        "actions",
    )
    prepared = Converter(schema, 100).prepare({"actions": [1, 2, 3, 4, 5], "obs": [1, 2, 3]})
    assert (prepared.length, prepared.span, prepared.extra) == (3, 5, 0)
    assert str(refusal({"actions": [1, 2], "obs": []}, schema)) == (
        "column 'actions': has 2 rows, 2 of them beyond the last transition, so the sequence has "
        "no transition; give at least 3 rows"
    )


def test_maxlen_may_be_raised() -> None:
    converter = Converter(SCHEMA, 3)
    assert converter.prepare(sequence(3)).length == 3
    with pytest.raises(SequenceError, match="at most 3"):
        converter.prepare(sequence(4))
    assert converter.prepare(sequence(4), maxlen=4).length == 4
    converter.maxlen = 4
    assert converter.prepare(sequence(4)).length == 4


@pytest.mark.parametrize("name", ["obs", "actions", "terminal"])
def test_missing_columns(name: str) -> None:
    given = sequence(**{name: None})
    error = refusal(given)
    assert str(error) == (
        f"column '{name}': missing from the sequence, which has {', '.join(given)}; "
        "give every stored column and tag"
    )
    assert error.column == name  # type: ignore[attr-defined]


def test_no_columns() -> None:
    assert str(refusal({})) == (
        "column 'obs': missing from the sequence, which has no columns; "
        "give every stored column and tag"
    )


@pytest.mark.parametrize("given", [[1, 2], None, 3, "obs"])
def test_no_mapping(given: Any) -> None:
    assert str(refusal(given)) == (
        f"a sequence is a {type(given).__name__}; give a mapping of column name to rows"
    )


def test_unknown_columns() -> None:
    assert str(refusal(sequence(reward=[1.0]))) == (
        "column 'reward': the table has no such column; it stores obs, actions, rewards, terminal"
    )


def test_virtual_columns() -> None:
    assert str(refusal(sequence(next_obs=np.zeros((3, 2), np.float32)))) == (
        "column 'next_obs': given in the sequence, but it is computed from 'obs'; leave it out"
    )


def test_a_mapping_that_fails_keeps_its_own_error() -> None:
    class Failing(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise KeyError("disk on fire")

        def __iter__(self) -> Any:
            return iter(("obs", "actions", "rewards", "terminal"))

        def __len__(self) -> int:
            return 4

        def __contains__(self, key: object) -> bool:
            return key in list(self)

    with pytest.raises(KeyError, match="disk on fire"):
        Converter(SCHEMA, 100).prepare(Failing())


def test_empty_sequences() -> None:
    error = refusal(sequence(0, obs=np.zeros((1, 2), np.float32)))
    assert str(error) == (
        "column 'actions': has 0 rows, so the sequence has no transition; give at least 1 rows"
    )
    assert error.rows == 0  # type: ignore[attr-defined]
    assert "column 'actions': has 0 rows" in str(refusal(sequence(0, actions=[], rewards=[])))


def test_too_long_sequences() -> None:
    error = refusal(sequence(5), maxlen=4)
    assert str(error) == (
        "sequence has 5 transitions, the table holds at most 4 (maxlen); "
        "split it or resize the table"
    )
    assert (error.length, error.maxlen) == (5, 4)  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [0, 3, 5])
def test_wrong_counts_where_something_looks_ahead(count: int) -> None:
    error = refusal(sequence(obs=np.zeros((count, 2), np.float32)))
    assert str(error) == (
        f"column 'obs': has {count} rows, but 'actions' says the sequence has 3 transitions; "
        "give 4: 'next_obs' looks 1 ahead"
    )
    assert (error.rows, error.length) == (count, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [3, 4, 6])
def test_no_row_less_and_none_more_where_something_looks_far_ahead(count: int) -> None:
    far = VirtualColumn("far_obs", (), int, "obs", NextNElementWrapper.with_n(2))
    near = VirtualColumn("next_obs", (), int, "obs", NextElementMapper)
    schema = Schema.build([Column("obs", (), int), Column("a", (), int), far, near], "a")
    assert Converter(schema, 9).prepare({"obs": [1, 2, 3, 4, 5], "a": [1, 2, 3]}).length == 3
    assert str(refusal({"obs": np.ones(count, int), "a": [1, 2, 3]}, schema)) == (
        f"column 'obs': has {count} rows, but 'a' says the sequence has 3 transitions; "
        "give 5: 'far_obs' looks 2 ahead"
    )


@pytest.mark.parametrize("count", [0, 2, 5])
def test_wrong_counts(count: int) -> None:
    assert str(refusal(sequence(rewards=[0.5] * count))) == (
        f"column 'rewards': has {count} rows, but 'actions' says the sequence has 3 transitions; "
        "give 3, or 4 with the value after the last transition"
    )


@pytest.mark.parametrize(
    ("step", "spelled"), [((), "()"), ((3,), "(3,)"), ((1,), "(1,)"), ((2, 1), "(2, 1)")]
)
def test_wrong_step_shapes(step: tuple[int, ...], spelled: str) -> None:
    error = refusal(sequence(obs=np.zeros((4, *step), np.float32)))
    assert str(error) == (
        f"column 'obs': step shape is {spelled}, declared (2,); pass arrays of shape (steps, 2) "
        f"or declare shape={spelled}"
    )
    assert (error.shape, error.declared) == (step, (2,))  # type: ignore[attr-defined]


def test_scalar_columns_want_one_axis() -> None:
    assert str(refusal(sequence(rewards=np.ones((3, 1), np.float32)))) == (
        "column 'rewards': step shape is (1,), declared (); pass arrays of shape (steps,) "
        "or declare shape=(1,)"
    )


@pytest.mark.parametrize("value", [1.0, np.float32(1), np.array(1, np.float32), torch.tensor(1.0)])
def test_single_values(value: Any) -> None:
    assert str(refusal(sequence(rewards=value))) == (
        "column 'rewards': is a single value, not one row per transition; "
        "pass an array of shape (steps,)"
    )
