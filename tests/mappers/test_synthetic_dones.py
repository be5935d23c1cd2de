"""Ends told from lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shmtable.columns import DTYPES, Column, Schema, VirtualColumn
from shmtable.errors import SpecError
from shmtable.mappers import NextElementMapper, SyntheticDones
from tests.columns.placing import Placed

PLACES = [(0, 0), (0, 2), (1, 0), (2, 0)]
# Steps of windows of two from PLACES in sequences of 4, 2 and 2.
ENDS = [0, 0, 0, 1, 0, 1, 0, 1]


def placed(column: VirtualColumn) -> Placed:
    schema = Schema.build(
        [
            Column("obs", (), int),
            Column("actions", (), int),
            VirtualColumn("next_obs", (), int, "obs", NextElementMapper),
            column,
        ],
        "actions",
    )
    sequences = [
        {"obs": np.zeros(length + 1, int), "actions": np.zeros(length, int)} for length in (4, 2, 2)
    ]
    return Placed(schema, sequences)


@pytest.mark.parametrize("target", ["actions", "obs"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_dones(target: str, shape: tuple[int, ...]) -> None:
    # Of a sequence's length, not of the rows its target happens to have.
    column = VirtualColumn("dones", shape, bool, target, SyntheticDones)
    found = column.mapper.compute(placed(column).windows(PLACES, 2), column)
    assert found.shape == (8, *shape)
    assert found.view(-1).tolist() == [bool(end) for end in ENDS]


def test_masks_are_the_complement() -> None:
    column = VirtualColumn("masks", (), "float32", "actions", SyntheticDones.as_mask)
    found = column.mapper.compute(placed(column).windows(PLACES, 2), column)
    assert found.tolist() == [1.0 - end for end in ENDS]


def test_single_transitions() -> None:
    column = VirtualColumn("dones", (), bool, "actions", SyntheticDones)
    windows = placed(column).windows([(0, 0), (0, 3), (1, 1)], 1)
    assert column.mapper.compute(windows, column).tolist() == [False, True, True]


def test_steps_past_the_end_are_ends() -> None:
    column = VirtualColumn("dones", (), int, "actions", SyntheticDones)
    windows = placed(column).windows([(0, 2), (1, 1)], 3, clamp=True)
    assert column.mapper.compute(windows, column).tolist() == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_dtype(dtype: str) -> None:
    column = VirtualColumn("dones", (), dtype, "actions", SyntheticDones)
    found = column.mapper.compute(placed(column).windows([(1, 1)], 1), column)
    assert found.dtype == DTYPES[dtype].torch
    assert found.to(torch.complex64).real.tolist() == [1.0]


@pytest.mark.parametrize("shape", [(2,), (1, 3)])
def test_one_value_per_transition(shape: Any) -> None:
    with pytest.raises(SpecError) as raised:
        placed(VirtualColumn("dones", shape, bool, "actions", SyntheticDones))
    assert str(raised.value) == (
        f"column 'dones': shape is {shape}, but the end of a sequence of 'actions' is one value "
        "per transition; declare shape=()"
    )


def test_mask_is_a_switch() -> None:
    with pytest.raises(SpecError, match=r"^mask is 'yes'; give True or False$"):
        SyntheticDones("yes")  # type: ignore[arg-type]
