"""Columns of which a sample has a window's first row only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shmtable.columns import Column, Schema, TagColumn, VirtualColumn, gather_columns
from shmtable.errors import SpecError
from shmtable.mappers import NextElementMapper
from tests.columns.placing import Placed

SCHEMA = Schema.build(
    [
        Column("actions", (), int),
        Column("state", (2,), "bfloat16", first_only=True),
        VirtualColumn("next_state", (2,), "bfloat16", "state", NextElementMapper),
    ],
    "actions",
)
LENGTHS = (4, 1, 3)


def placed() -> Placed:
    return Placed(
        SCHEMA,
        [
            {
                "actions": np.arange(length),
                "state": 16 * slot + np.arange(2 * length + 2).reshape(-1, 2),
            }
            for slot, length in enumerate(LENGTHS)
        ],
    )


@pytest.mark.parametrize("layout", ["flat", "batch_time"])
@pytest.mark.parametrize("pad", [None, "zero", "edge"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_one_row_per_window(steps: int, pad: str | None, layout: str) -> None:
    table = placed()
    places = table.places(steps, pad is not None)
    if not places:
        return
    windows = table.windows(places, steps, pad is not None)
    result = gather_columns(SCHEMA, windows, pad=pad, layout=layout)
    expected = table.expected("state", places, 1)[:, 0]
    assert SCHEMA.columns[1].per_window
    assert result["state"].shape == (len(places), 2)
    assert np.array_equal(result["state"].float().numpy(), expected)
    # It is stored for every step, and virtual columns see all of them.
    later = table.expected("state", places, steps, 1)
    if pad != "zero":
        assert np.array_equal(result["next_state"].float().numpy().reshape(later.shape), later)


def test_settings_are_kept_in_json() -> None:
    again = Schema.from_json(SCHEMA.to_json(), {"NextElementMapper": NextElementMapper})
    assert again == SCHEMA
    assert again.columns[1].first_only
    assert Column("x", (), int) != Column("x", (), int, first_only=True)


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_it_is_a_switch(value: Any) -> None:
    with pytest.raises(SpecError) as raised:
        Column("state", (), int, first_only=value)
    assert str(raised.value) == f"column 'state': first_only is {value!r}; give True or False"


def test_only_stored_columns_have_it() -> None:
    with pytest.raises(TypeError, match="first_only"):
        TagColumn("x", (), int, first_only=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="first_only"):
        VirtualColumn("x", (), int, "y", NextElementMapper, first_only=True)  # type: ignore[call-arg]
