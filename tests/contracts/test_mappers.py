"""What every mapper promises; a new one is tested by adding it to CASES."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from shmtable.columns import Column, Schema, VirtualColumn
from shmtable.errors import SpecError
from shmtable.mappers import (
    MAPPERS,
    Mapper,
    NextElementMapper,
    NextNElementWrapper,
    SyntheticDones,
)
from tests.columns.placing import Placed

LENGTHS = (6, 1, 3)
Case = Callable[[], VirtualColumn]

# A column for each mapper and each of its settings, computed from "x" (int64, shape (2,)).
CASES: dict[str, Case] = {
    "next": lambda: VirtualColumn("v", (2,), int, "x", NextElementMapper()),
    "only last": lambda: VirtualColumn("v", (2,), int, "x", NextElementMapper.with_only_last()),
    "next n": lambda: VirtualColumn("v", (2,), int, "x", NextNElementWrapper.with_n(3)),
    "dones": lambda: VirtualColumn("v", (1,), bool, "x", SyntheticDones()),
    "mask": lambda: VirtualColumn("v", (), "float32", "x", SyntheticDones.as_mask()),
}


@pytest.fixture(params=CASES)
def column(request: pytest.FixtureRequest) -> VirtualColumn:
    return CASES[request.param]()


def placed(column: VirtualColumn, filler: int = 0) -> Placed:
    schema = Schema.build([Column("key", (), int), Column("x", (2,), int), column], "key")
    ahead = schema.look_ahead["x"]
    sequences = [
        {"key": [0] * length, "x": np.arange(2 * (length + ahead)).reshape(-1, 2) + 100 * slot}
        for slot, length in enumerate(LENGTHS)
    ]
    return Placed(schema, sequences, filler)


def computed(column: VirtualColumn, steps: int, clamp: bool, filler: int = 0) -> Tensor:
    table = placed(column, filler)
    windows = table.windows(table.places(steps, clamp), steps, clamp)
    return column.mapper.compute(windows, column)


def test_every_mapper_is_here() -> None:
    assert {type(case().mapper) for case in CASES.values()} == set(MAPPERS.values())
    assert all(name == mapper.__name__ for name, mapper in MAPPERS.items())


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_shape_and_dtype(column: VirtualColumn, steps: int, clamp: bool) -> None:
    table = placed(column)
    count = len(table.places(steps, clamp))
    found = computed(column, steps, clamp)
    rows = count if column.mapper.per_window else count * steps
    assert found.shape == (rows, *column.shape)
    assert found.dtype == column.dtype.torch


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_only_the_sequences_own_rows_are_read(
    column: VirtualColumn, steps: int, clamp: bool
) -> None:
    # Whatever lies beside the sequences, the last steps of their windows are the same.
    results = [computed(column, steps, clamp, filler) for filler in (0, 255)]
    assert torch.equal(*results)


@pytest.mark.parametrize("steps", [1, 3])
def test_windows_that_reach_past_the_end_repeat_the_last_transition(
    column: VirtualColumn, steps: int
) -> None:
    table = placed(column)
    last = [(slot, length - 1) for slot, length in enumerate(LENGTHS)]
    single = column.mapper.compute(table.windows(last, 1), column)
    long = column.mapper.compute(table.windows(last, steps, clamp=True), column)
    repeats = 1 if column.mapper.per_window else steps
    assert torch.equal(long, single.repeat_interleave(repeats, 0))


def test_windows_of_single_steps_make_up_long_ones(column: VirtualColumn) -> None:
    table = placed(column)
    long = column.mapper.compute(table.windows([(0, 1)], 4), column)
    single = column.mapper.compute(table.windows([(0, at) for at in range(1, 5)], 1), column)
    assert torch.equal(long, single[-1:] if column.mapper.per_window else single)


def test_results_are_fresh_memory(column: VirtualColumn) -> None:
    table = placed(column)
    windows = table.windows([(0, 0), (2, 0)], 3)
    first, second = (column.mapper.compute(windows, column) for _ in range(2))
    kept, region = second.clone(), table.regions["x"].clone()
    first.copy_(first == 0)
    assert torch.equal(second, kept)
    assert torch.equal(table.regions["x"], region)


def test_settings_make_it_again(column: VirtualColumn) -> None:
    mapper = column.mapper
    assert isinstance(mapper, Mapper)
    again = MAPPERS[type(mapper).__name__].from_config(json.loads(json.dumps(mapper.config())))
    assert again == mapper
    assert hash(again) == hash(mapper)
    assert again.look_ahead == mapper.look_ahead
    assert again.per_window is mapper.per_window
    assert pickle.loads(pickle.dumps(mapper)) == mapper
    assert eval(repr(mapper), dict(MAPPERS)) == mapper


def test_different_settings_are_different() -> None:
    mappers = [case().mapper for case in CASES.values()]
    assert all(one != other for one, other in itertools.combinations(mappers, 2))
    assert NextElementMapper() != "NextElementMapper()"


def test_settings_it_does_not_take(column: VirtualColumn) -> None:
    with pytest.raises(SpecError) as raised:
        type(column.mapper).from_config({"colour": 1})  # type: ignore[attr-defined]
    name = type(column.mapper).__name__
    assert str(raised.value).startswith(
        f"mapper {name} does not take the settings {{'colour': 1}}: "
    )


def test_your_own_mapper() -> None:
    class Doubled(Mapper):
        """Twice the target."""

        def compute(self, windows, column):  # type: ignore[no-untyped-def]
            return windows.gather(column.target_name) * 2

    column = VirtualColumn("v", (2,), int, "x", Doubled)
    schema = Schema.build([Column("x", (2,), int), column], "x")
    assert Schema.from_json(schema.to_json(), {"Doubled": Doubled}).columns == schema.columns
    table = Placed(schema, [{"x": [[1, 2], [3, 4]]}])
    found = column.mapper.compute(table.windows([(0, 0)], 2), column)
    assert found.tolist() == [[2, 4], [6, 8]]
    assert (column.mapper.look_ahead, column.mapper.per_window) == (0, False)
