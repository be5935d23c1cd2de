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

from shmtable.columns import Column, Schema, TagColumn, VirtualColumn, gather_columns
from shmtable.errors import SpecError
from shmtable.mappers import (
    MAPPERS,
    AgeMapper,
    BurnIn,
    FrameStack,
    Mapper,
    NextElementMapper,
    NextNElementWrapper,
    NStepDiscount,
    NStepElementMapper,
    NStepReturn,
    PositionMapper,
    PreviousElementMapper,
    SyntheticDones,
)
from tests.columns.placing import Placed

LENGTHS = (6, 1, 3)
Case = Callable[[], VirtualColumn]

# A column for each mapper and each of its settings, computed from "x" (int64, shape (2,)). There
# are a column "end" and a tag "cut" too, for those that read a second one.
CASES: dict[str, Case] = {
    "age": lambda: VirtualColumn("v", (), int, "x", AgeMapper()),
    "burn-in": lambda: VirtualColumn("v", (), bool, "x", BurnIn(2)),
    "burn-in mask": lambda: VirtualColumn("v", (1,), "float32", "x", BurnIn.as_mask(2)),
    "stack": lambda: VirtualColumn("v", (3, 2), int, "x", FrameStack(3)),
    "stack, edge": lambda: VirtualColumn("v", (6,), int, "x", FrameStack(3, pad="edge")),
    "stack, next": lambda: VirtualColumn("v", (3, 2), int, "x", FrameStack(3, ahead=1)),
    "stack, ahead": lambda: VirtualColumn("v", (3, 2), int, "x", FrameStack(3, ahead=2)),
    "return": lambda: VirtualColumn("v", (2,), "float32", "x", NStepReturn(3, 0.5)),
    "return, lives": lambda: VirtualColumn("v", (2,), "float64", "x", NStepReturn(3, 0.5, "end")),
    "discount": lambda: VirtualColumn("v", (), "float32", "x", NStepDiscount(3, 0.5)),
    "discount, lives": lambda: VirtualColumn("v", (), "float64", "x", NStepDiscount(3, 0.5, "end")),
    "discount, cut": lambda: VirtualColumn("v", (1,), "float16", "x", NStepDiscount(3, 0.5, "cut")),
    "n later": lambda: VirtualColumn("v", (2,), int, "x", NStepElementMapper(3)),
    "position": lambda: VirtualColumn("v", (1, 1), "int32", "x", PositionMapper()),
    "previous": lambda: VirtualColumn("v", (2,), int, "x", PreviousElementMapper()),
    "next": lambda: VirtualColumn("v", (2,), int, "x", NextElementMapper()),
    "only last": lambda: VirtualColumn("v", (2,), int, "x", NextElementMapper.with_only_last()),
    "next n": lambda: VirtualColumn("v", (2,), int, "x", NextNElementWrapper.with_n(3)),
    "dones": lambda: VirtualColumn("v", (1,), bool, "x", SyntheticDones()),
    "mask": lambda: VirtualColumn("v", (), "float32", "x", SyntheticDones.as_mask()),
}
# What is computed from a step's place in its window, instead of from that in its sequence.
OF_WINDOWS = {"burn-in", "burn-in mask"}


@pytest.fixture(params=sorted(CASES.keys() - OF_WINDOWS))
def step_column(request: pytest.FixtureRequest) -> VirtualColumn:
    return CASES[request.param]()


@pytest.fixture(params=CASES)
def column(request: pytest.FixtureRequest) -> VirtualColumn:
    return CASES[request.param]()


def placed(column: VirtualColumn, filler: int = 0) -> Placed:
    columns = [
        Column("key", (), int),
        Column("x", (2,), int),
        Column("end", (1,), bool),
        TagColumn("cut", (), int),
        column,
    ]
    schema = Schema.build(columns, "key")
    ahead = schema.look_ahead["x"]
    sequences = [
        {
            "key": [0] * length,
            "x": np.arange(2 * (length + ahead)).reshape(-1, 2) + 100 * slot,
            "end": [[at == 2 or slot == 1] for at in range(length)],
            "cut": slot % 2,
        }
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
    step_column: VirtualColumn, steps: int
) -> None:
    table = placed(step_column)
    last = [(slot, length - 1) for slot, length in enumerate(LENGTHS)]
    single = step_column.mapper.compute(table.windows(last, 1), step_column)
    long = step_column.mapper.compute(table.windows(last, steps, clamp=True), step_column)
    repeats = 1 if step_column.mapper.per_window else steps
    assert torch.equal(long, single.repeat_interleave(repeats, 0))


def test_windows_of_single_steps_make_up_long_ones(step_column: VirtualColumn) -> None:
    table = placed(step_column)
    long = step_column.mapper.compute(table.windows([(0, 1)], 4), step_column)
    single = step_column.mapper.compute(
        table.windows([(0, at) for at in range(1, 5)], 1), step_column
    )
    assert torch.equal(long, single[-1:] if step_column.mapper.per_window else single)


def test_results_are_fresh_memory(column: VirtualColumn) -> None:
    table = placed(column)
    windows = table.windows([(0, 0), (2, 0)], 3)
    first, second = (column.mapper.compute(windows, column) for _ in range(2))
    kept = second.clone()
    regions = {name: region.clone() for name, region in table.regions.items()}
    first.copy_(first == 0)
    assert torch.equal(second, kept)
    assert all(torch.equal(table.regions[name], region) for name, region in regions.items())


def test_a_column_that_is_its_target_later_may_be_copied_as_it_is(column: VirtualColumn) -> None:
    assert isinstance(column.mapper, Mapper)
    shift = column.mapper.shift()
    if shift is None:
        assert column.copied_from is None
        return
    assert column.copied_from == ("x", shift)
    windows = placed(column).windows([(0, 0), (2, 0), (0, 2)], 3)
    assert torch.equal(column.mapper.compute(windows, column), windows.gather("x", shift))


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


def test_a_subclass_with_a_compute_of_its_own_is_no_copy() -> None:
    class Scaled(NextElementMapper):
        """Twice the next element."""

        def compute(self, windows, column):  # type: ignore[no-untyped-def]
            return super().compute(windows, column) * 2

    class Renamed(NextElementMapper):
        """The next element."""

    class Same(Scaled):
        """The next element after all."""

        def shift(self) -> int:
            return 1

        def compute(self, windows, column):  # type: ignore[no-untyped-def]
            return windows.gather(column.target_name, 1)

    class Shifted(Scaled):
        """Twice the next element; it has a setting of that name."""

        def __init__(self) -> None:
            super().__init__()
            self.shift = 3  # type: ignore[assignment, method-assign]

    assert [mapper().shift() for mapper in (Scaled, Renamed, Same)] == [None, 1, 1]
    assert VirtualColumn("v", (2,), int, "x", Shifted).copied_from is None
    column = VirtualColumn("v", (2,), int, "x", Scaled)
    schema = Schema.build([Column("x", (2,), int), column], "x")
    table = Placed(schema, [{"x": [[1, 2], [3, 4]]}])
    found = gather_columns(schema, table.windows([(0, 0)], 1))
    assert found["v"].tolist() == [[6, 8]]
    assert list(found) == ["x", "v"]


@pytest.mark.parametrize(
    ("shift", "shape", "message"),
    [
        (2, (2,), "rows of 2 steps later; it may give those of 0 to 1 steps later, as far as"),
        (-1, (2,), "rows of -1 steps later; it may give those of 0 to 1 steps later, as far as"),
        (1, (1, 2), "gives rows of 'x' as they are, shape (2,) and dtype int64; it has (1, 2)"),
    ],
)
def test_a_copy_that_cannot_be(shift: int, shape: tuple[int, ...], message: str) -> None:
    class Later(Mapper):
        look_ahead = 1

        def shift(self) -> int:
            return shift

        def compute(self, windows, column):  # type: ignore[no-untyped-def]
            raise AssertionError

    column = VirtualColumn("v", shape, int, "x", Later)
    with pytest.raises(SpecError) as raised:
        Schema.build([Column("x", (2,), int), column], "x")
    assert str(raised.value).startswith("column 'v': its mapper ")
    assert message in str(raised.value)
