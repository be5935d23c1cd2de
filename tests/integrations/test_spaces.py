"""Spaces become columns, whatever they consist of, and values find their columns and back."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gymnasium")

from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from shmtable import ArrayMemoryTable, FifoEjectionStrategy, SpecError, UniformSampleStrategy
from shmtable.integrations.gymnasium import columns_from_spaces, flattened, nested

BOX = spaces.Box(-1.0, 1.0, (2, 3), np.float32)
REST = {"rewards": ((), "float32"), "terminated": ((), "bool"), "truncated": ((), "bool")}


def described(columns: list) -> dict:
    return {c.name: (c.shape, c.dtype.name) for c in columns}


@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (BOX, (2, 3), "float32"),
        (spaces.Box(0, 255, (4, 5, 1), np.uint8), (4, 5, 1), "uint8"),
        (spaces.Box(0, 1, (), np.float64), (), "float64"),
        (spaces.Discrete(5, start=-2), (), "int64"),
        (spaces.MultiDiscrete([3, 4]), (2,), "int64"),
        (spaces.MultiDiscrete([[3, 4, 5], [6, 7, 8]]), (2, 3), "int64"),
        (spaces.MultiBinary(4), (4,), "int8"),
        (spaces.MultiBinary([2, 2]), (2, 2), "int8"),
    ],
)
def test_a_space_of_one_array_is_one_column(space, shape, dtype) -> None:
    columns = columns_from_spaces(space, space)
    assert described(columns) == {
        "obs": (shape, dtype),
        "actions": (shape, dtype),
        **REST,
        "next_obs": (shape, dtype),
    }
    without = columns_from_spaces(space, space, next_observations=False)
    assert "next_obs" not in described(without)


NESTED = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (4, 4), np.uint8),
        "arm": spaces.Dict({"joints": BOX, "grip": spaces.Discrete(2)}),
        "goal": spaces.Tuple((spaces.MultiBinary(3), spaces.Dict({"x": spaces.Discrete(9)}))),
    }
)
NAMES = ["obs.arm.grip", "obs.arm.joints", "obs.camera", "obs.goal.0", "obs.goal.1.x"]


def test_the_parts_of_a_nested_space_are_named_by_the_way_to_them() -> None:
    names = [c.name for c in columns_from_spaces(NESTED, spaces.Tuple((BOX, BOX)))]
    assert sorted(n for n in names if n.startswith("obs")) == NAMES
    assert sorted(n for n in names if n.startswith("next")) == [f"next_{name}" for name in NAMES]
    assert [n for n in names if n.startswith("actions")] == ["actions.0", "actions.1"]


def test_values_go_through_a_table_and_come_back_nested() -> None:
    actions = spaces.Tuple((BOX, spaces.Discrete(7)))
    for number, space in enumerate((NESTED, actions)):
        space.seed(number)
    steps = 5
    observed = batch_space(NESTED, steps + 1).sample()
    acted = batch_space(actions, steps).sample()
    with ArrayMemoryTable(
        columns=columns_from_spaces(NESTED, actions),
        maxlen=100,
        sampler=UniformSampleStrategy(),
        ejector=FifoEjectionStrategy(),
        length_key="rewards",
    ) as table:
        sequence = flattened(NESTED, observed, "obs") | flattened(actions, acted, "actions")
        zeros = np.zeros(steps)
        sequence |= {"rewards": zeros, "terminated": zeros > 0, "truncated": zeros > 0}
        table.add_sequence(1, sequence)
        sample = table.sample(1, steps)
        now = nested(NESTED, sample.__getitem__, "obs")
        later = nested(NESTED, sample.__getitem__, "obs", "next_")
        done = nested(actions, sample.__getitem__, "actions")
        assert table.check() == []
    assert isinstance(now["goal"], tuple) and isinstance(done, tuple)
    np.testing.assert_array_equal(now["arm"]["joints"], observed["arm"]["joints"][:-1])
    np.testing.assert_array_equal(later["arm"]["joints"], observed["arm"]["joints"][1:])
    np.testing.assert_array_equal(later["goal"][1]["x"], observed["goal"][1]["x"][1:])
    np.testing.assert_array_equal(done[1], acted[1])


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Sequence(BOX),
        spaces.Graph(BOX, None),
        spaces.OneOf((BOX, spaces.Discrete(2))),
    ],
    ids=lambda space: type(space).__name__,
)
def test_what_has_no_fixed_shape_is_refused_in_words(space) -> None:
    message = rf"column 'obs.deep.0': a {type(space).__name__} space has no fixed shape.* wrap"
    with pytest.raises(SpecError, match=message):
        columns_from_spaces(spaces.Dict({"deep": spaces.Tuple((space,))}), BOX)


def test_empty_spaces_and_one_name_for_two_are_refused() -> None:
    with pytest.raises(SpecError, match="column 'obs.a': an empty Dict space has nothing"):
        columns_from_spaces(spaces.Dict({"a": spaces.Dict({})}), BOX)
    twice = spaces.Dict({"a.b": BOX, "a": spaces.Dict({"b": BOX})})
    with pytest.raises(SpecError, match=r"two parts .* the column 'obs.a.b'; rename"):
        columns_from_spaces(twice, BOX)
