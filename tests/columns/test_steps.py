"""Single steps: taken and refused exactly as rows of whole sequences are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shmtable import Column, SequenceError
from shmtable.columns import DTYPES, Steps
from shmtable.columns.convert import as_rows

SCALARS: list[Any] = [
    True, np.True_, 0, 1, 2, -1, 300, 2**24 + 1, 2**63 - 1, 2**63, 10**400,
    0.5, 1e300, -65505.0, float("inf"), float("-inf"), 1j, "one", None, b"1",
    np.int8(-3), np.uint8(200), np.int64(2**40), np.uint64(2**64 - 1), np.float16(1.5),
    np.float32(3e38), np.float64(1e39), np.longdouble(2), np.complex64(1 + 1j),
    np.array(3), np.array(2.5), torch.tensor(4), torch.tensor(0.25), torch.tensor(1e30),
    torch.tensor(1.5, dtype=torch.bfloat16), torch.tensor(True), torch.tensor(2.0).requires_grad_(),
]  # fmt: skip
ROWS: list[Any] = [
    [1, 2], (True, False), [0.5, 1e300], np.array([1, 2]), np.array([1.0, 2.0], np.float32),
    np.array([1.0, 2.0], ">f4"), np.array([2**40, -1]), np.ones((4, 2))[::2, 1], torch.ones(2),
    torch.arange(4)[::2], [torch.tensor(1.0), torch.tensor(2.0)], [np.float32(1), 2],
    np.array([1, 2, 3]), [[1, 2]], np.ones((2, 1)), 5, [1], "ab", [1, [2, 3]], np.array(["a", "b"]),
]  # fmt: skip


def steps_of(*columns: Column, optional: tuple[str, ...] = ()) -> Steps:
    steps = Steps(columns, optional, 1)
    steps.grow(100)
    return steps


def outcome(take: Any) -> Any:
    """Bits, or the kind of refusal."""
    try:
        array = take()
    except SequenceError:
        return "refused"
    return array.dtype, array.shape, array.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "values"), [((), SCALARS), ((2,), ROWS)], ids=["one", "row"])
def test_a_step_is_taken_or_refused_as_a_row_is(
    dtype: str, shape: tuple[int, ...], values: list[Any]
) -> None:
    column = Column("x", shape, dtype)
    steps = steps_of(column)
    taken = 0

    def put(value: Any) -> Any:
        steps.put({"x": value})
        return steps.rows("x")[:1]

    for value in values:
        wanted = outcome(lambda value=value: as_rows(column, [value]))
        assert outcome(lambda value=value: put(value)) == wanted, value
        taken += wanted != "refused"
    assert 0 < taken < len(values)


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), np.float64("nan")])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_what_is_no_number_is_kept(value: Any, dtype: str) -> None:
    steps = steps_of(Column("x", (), dtype))
    steps.put({"x": value})
    assert np.isnan(steps.rows("x")[0])


@pytest.mark.parametrize("value", [3, 3.0, [3], np.full((1, 1), 3), torch.tensor(3), np.int8(3)])
def test_a_column_of_one_element_takes_a_plain_number(value: Any) -> None:
    for shape in ((), (1,), (1, 1)):
        steps = steps_of(Column("x", shape, "float32"))
        steps.put({"x": value})
        assert steps.rows("x")[0].tolist() == np.full(shape, 3.0).tolist()


def test_steps_grow_and_keep_what_there_is() -> None:
    steps = steps_of(Column("x", (2,), "int64"), Column("y", (), "float32"))
    for step in range(100):
        if step == steps.room:
            steps.grow(100)
        steps.put({"x": np.array([step, -step]), "y": float(step)})
        steps.length += 1
    assert steps.room == 100
    steps.follow("x", [100, -100], 1)
    assert steps.rows("x").tolist() == [[step, -step] for step in range(101)]
    steps.forget(97, 101)
    assert steps.length == 3
    assert steps.rows("x")[:4, 0].tolist() == [97, 98, 99, 100]
    assert steps.rows("y")[:3].tolist() == [97, 98, 99]


def test_a_refused_step_counts_for_nothing() -> None:
    steps = steps_of(Column("x", (), "int64"), Column("y", (), "float32"))
    steps.put({"x": 1, "y": 2})
    steps.length += 1
    for values in ({"x": 5, "y": "?"}, {"x": 5}, {"x": 5, "z": 1}, {"x": 5, "y": 1, "z": 1}, {}):
        with pytest.raises(SequenceError):
            steps.put(values)
        assert steps.length == 1 and steps.rows("x")[0] == 1 and steps.rows("y")[0] == 2


def test_optional_columns_come_with_every_step_or_with_none() -> None:
    steps = steps_of(Column("x", (), "int64"), Column("y", (), "bool"), optional=("y",))
    for values in ({"x": 1}, {"x": 1, "y": True}, {"y": False, "x": 2}, {"x": 3}):
        steps.put(values)  # always the first one
        assert steps.names() == list(sorted(values))
    steps.length += 1
    with pytest.raises(SequenceError, match="'y': the steps before this one came without it"):
        steps.put({"x": 1, "y": True})
    steps.length = 0
    steps.put({"x": 1, "y": True})
    steps.length += 1
    with pytest.raises(SequenceError, match="'y': missing from the step, which has x"):
        steps.put({"x": 1})


def test_an_error_inside_a_value_is_not_taken_for_a_missing_column() -> None:
    class Odd:
        def __array__(self, *args: Any, **options: Any) -> Any:
            raise KeyError("of its own")

    with pytest.raises(KeyError, match="of its own"):
        steps_of(Column("x", (), "int64")).put({"x": Odd()})
