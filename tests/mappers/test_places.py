"""Previous elements, positions, ages, and the burn-in of windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shmtable.columns import DTYPES, Column, Schema, VirtualColumn
from shmtable.errors import SpecError
from shmtable.mappers import AgeMapper, BurnIn, PositionMapper, PreviousElementMapper
from tests.columns.placing import Placed
from tests.mappers import reference

SCHEMA = Schema.build(
    [
        Column("actions", (2,), "int16"),
        VirtualColumn("previous", (2,), "int16", "actions", PreviousElementMapper),
        VirtualColumn("position", (1,), "float64", "actions", PositionMapper),
        VirtualColumn("age", (), int, "actions", AgeMapper),
        VirtualColumn("burn_in", (), bool, "actions", BurnIn(2)),
        VirtualColumn("learn", (1,), "float32", "actions", BurnIn.as_mask(2)),
    ],
    "actions",
)


def placed(lengths: list[int]) -> Placed:
    return Placed(
        SCHEMA,
        [
            {"actions": [[100 * slot + at, -at] for at in range(length)]}
            for slot, length in enumerate(lengths, start=1)
        ],
        filler=255,
    )


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    steps=st.integers(1, 5),
    clamp=st.booleans(),
)
def test_against_lists(lengths: list[int], steps: int, clamp: bool) -> None:
    table = placed(lengths)
    places = table.places(steps, clamp)
    if not places:
        return
    windows = table.windows(places, steps, clamp)
    found = {column.name: column.gather(windows).tolist() for column in SCHEMA.virtual}
    at = [
        (slot, place)
        for slot, offset in places
        for place in reference.steps_of(offset, lengths[slot], steps)
    ]
    assert found["position"] == [[place] for _, place in at]
    assert found["previous"] == [
        [100 * (slot + 1) + place - 1, 1 - place] if place else [0, 0] for slot, place in at
    ]
    added = [(slot, place) for slot, length in enumerate(lengths) for place in range(length)]
    assert found["age"] == [len(added) - 1 - added.index(one) for one in at]
    assert found["burn_in"] == [step < 2 for _ in places for step in range(steps)]
    assert found["learn"] == [[float(step >= 2)] for _ in places for step in range(steps)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_previous_of_any_dtype(dtype: str) -> None:
    column = VirtualColumn("previous", (), dtype, "x", PreviousElementMapper)
    schema = Schema.build([Column("x", (), dtype), column], "x")
    table = Placed(schema, [{"x": torch.ones(3).to(DTYPES[dtype].torch)}], filler=255)
    found = column.gather(table.windows([(0, 0)], 3))
    assert found.dtype == DTYPES[dtype].torch
    assert found.to(torch.complex64).real.round().tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("mapper", "what"),
    [
        (PositionMapper(), "the position in a sequence"),
        (AgeMapper(), "the age"),
        (BurnIn(1), "the burn-in of a window"),
    ],
)
def test_one_value_per_transition(mapper: Any, what: str) -> None:
    columns = [Column("x", (), int), VirtualColumn("v", (2,), int, "x", mapper)]
    with pytest.raises(SpecError) as raised:
        Schema.build(columns, "x")
    assert str(raised.value) == (
        f"column 'v': shape is (2,), but {what} is one value per transition; declare shape=()"
    )


@pytest.mark.parametrize("steps", [0, -1, 1.5, None])
def test_impossible_burn_in(steps: Any) -> None:
    with pytest.raises(SpecError) as raised:
        BurnIn(steps)
    assert str(raised.value) == f"steps is {steps!r}; give an integer of at least 1"


def test_mask_is_a_switch() -> None:
    with pytest.raises(SpecError, match=r"^mask is 1; give True or False$"):
        BurnIn(3, mask=1)  # type: ignore[arg-type]
