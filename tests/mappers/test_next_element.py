"""The element one or n steps later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shmtable.columns import Column, Schema, VirtualColumn
from shmtable.errors import SpecError
from shmtable.mappers import NextElementMapper, NextNElementWrapper
from tests.columns.placing import Placed


def placed(mapper: Any, ahead: int) -> tuple[Placed, VirtualColumn]:
    column = VirtualColumn("next", (), int, "obs", mapper)
    schema = Schema.build([Column("obs", (), int), Column("actions", (), int), column], "actions")
    assert schema.look_ahead["obs"] == ahead
    sequences = [
        {"obs": 100 * slot + np.arange(length + ahead), "actions": np.zeros(length, int)}
        for slot, length in enumerate((4, 2), start=1)
    ]
    return Placed(schema, sequences), column


def test_next() -> None:
    table, column = placed(NextElementMapper, 1)
    windows = table.windows([(0, 0), (0, 2), (1, 0)], 2)
    assert column.mapper.compute(windows, column).tolist() == [101, 102, 103, 104, 201, 202]


def test_next_repeats_the_element_after_the_last_transition_where_clamped() -> None:
    table, column = placed(NextElementMapper, 1)
    windows = table.windows([(0, 2), (1, 1)], 3, clamp=True)
    assert column.mapper.compute(windows, column).tolist() == [103, 104, 104, 202, 202, 202]


def test_only_last() -> None:
    table, column = placed(NextElementMapper.with_only_last, 1)
    assert column.mapper.per_window
    windows = table.windows([(0, 0), (0, 2), (1, 0)], 2)
    assert column.mapper.compute(windows, column).tolist() == [102, 104, 202]
    windows = table.windows([(0, 0), (0, 2), (1, 1)], 3, clamp=True)
    assert column.mapper.compute(windows, column).tolist() == [103, 104, 202]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_next_n(n: int) -> None:
    table, column = placed(NextNElementWrapper.with_n(n), n)
    assert column.mapper.look_ahead == n
    windows = table.windows([(0, 1), (1, 0)], 2)
    assert column.mapper.compute(windows, column).tolist() == [
        101 + n,
        102 + n,
        200 + n,
        201 + n,
    ]


@pytest.mark.parametrize("n", [0, -1, 1.0, True, None])
def test_impossible_n(n: Any) -> None:
    with pytest.raises(SpecError) as raised:
        NextNElementWrapper.with_n(n)
    assert str(raised.value) == f"n is {n!r}; give an integer of at least 1"


def test_only_last_is_a_switch() -> None:
    with pytest.raises(SpecError, match=r"^only_last is 1; give True or False$"):
        NextElementMapper(1)  # type: ignore[arg-type]


@pytest.mark.parametrize("mapper", [NextElementMapper(), NextNElementWrapper(2)])
@pytest.mark.parametrize(
    ("shape", "dtype"), [((2,), "float32"), ((), "float32"), ((3,), "float64")]
)
def test_the_targets_shape_and_dtype_are_needed(mapper: Any, shape: Any, dtype: str) -> None:
    columns = [
        Column("obs", (3,), torch.float32),
        VirtualColumn("next_obs", shape, dtype, "obs", mapper),
    ]
    with pytest.raises(SpecError) as raised:
        Schema.build(columns, "obs")
    assert str(raised.value) == (
        f"column 'next_obs': shape {shape} and dtype {dtype} differ from those of its target "
        "'obs', (3,) and float32; declare both alike"
    )
