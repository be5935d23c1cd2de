"""Frames stored once, stacked at sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shmtable.columns import DTYPES, Column, Schema, VirtualColumn
from shmtable.errors import SpecError
from shmtable.mappers import FrameStack
from tests.columns.placing import Placed
from tests.mappers import reference


def placed(
    lengths: list[int], mapper: FrameStack, frame: tuple[int, ...] = (2,), dtype: Any = "int16"
) -> tuple[Placed, VirtualColumn]:
    column = VirtualColumn("stack", (mapper.n, *frame), dtype, "frames", mapper)
    columns = [Column("frames", frame, dtype), Column("actions", (), int), column]
    schema = Schema.build(columns, "actions")
    size = int(np.prod(frame))
    sequences = []
    for slot, length in enumerate(lengths, start=1):
        rows = length + mapper.look_ahead
        values = 100 * slot + np.arange(rows * size).reshape(rows, *frame)
        sequences.append({"frames": values, "actions": np.zeros(length, int)})
    return Placed(schema, sequences, filler=255), column


def test_by_hand() -> None:
    table, column = placed([3, 2], FrameStack(3), frame=())
    found = column.mapper.compute(table.windows([(0, 0), (1, 0)], 2), column)
    assert found.tolist() == [[0, 0, 100], [0, 100, 101], [0, 0, 200], [0, 200, 201]]
    table, column = placed([3, 2], FrameStack(3, pad="edge", ahead=1), frame=())
    found = column.mapper.compute(table.windows([(0, 0), (0, 2), (1, 1)], 1), column)
    assert found.tolist() == [[100, 100, 101], [101, 102, 103], [200, 201, 202]]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    n=st.integers(1, 6),
    pad=st.sampled_from(["zero", "edge"]),
    ahead=st.integers(0, 5),
    steps=st.integers(1, 5),
    clamp=st.booleans(),
)
def test_against_lists(
    lengths: list[int], n: int, pad: str, ahead: int, steps: int, clamp: bool
) -> None:
    table, column = placed(lengths, FrameStack(n, pad, ahead))
    places = table.places(steps, clamp)
    if not places:
        return
    found = column.mapper.compute(table.windows(places, steps, clamp), column)
    expected = [
        reference.stack(table.sequences[slot]["frames"], lengths[slot], at, n, pad, ahead)
        for slot, offset in places
        for at in reference.steps_of(offset, lengths[slot], steps)
    ]
    assert found.tolist() == np.array(expected).tolist()


def test_the_next_stack_is_the_stack_one_step_later() -> None:
    now, column = placed([7], FrameStack(4))
    later, next_column = placed([7], FrameStack(4, ahead=1))
    places = [(0, at) for at in range(6)]
    following = [(0, at) for at in range(1, 7)]
    assert torch.equal(
        next_column.mapper.compute(later.windows(places, 1), next_column),
        column.mapper.compute(now.windows(following, 1), column),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_dtype(dtype: str) -> None:
    mapper = FrameStack(2)
    column = VirtualColumn("stack", (2,), dtype, "frames", mapper)
    schema = Schema.build([Column("frames", (), dtype), column], "frames")
    table = Placed(schema, [{"frames": torch.ones(2).to(DTYPES[dtype].torch)}], filler=255)
    found = column.mapper.compute(table.windows([(0, 0)], 2), column)
    assert found.dtype == DTYPES[dtype].torch
    assert found.to(torch.complex64).real.round().tolist() == [[0.0, 1.0], [1.0, 1.0]]


def test_channels_may_be_joined() -> None:
    mapper = FrameStack(2)
    columns = [
        Column("frames", (3, 2, 2), "uint8"),
        VirtualColumn("stack", (6, 2, 2), "uint8", "frames", mapper),
        VirtualColumn("apart", (2, 3, 2, 2), "uint8", "frames", mapper),
    ]
    schema = Schema.build(columns, "frames")
    table = Placed(schema, [{"frames": np.arange(48, dtype=np.uint8).reshape(4, 3, 2, 2)}])
    windows = table.windows([(0, 2)], 1)
    joined, apart = (column.gather(windows) for column in schema.virtual)
    assert torch.equal(joined, torch.cat(list(apart[0]))[None])
    assert joined.flatten().tolist() == list(range(12, 36))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 84), "uint8"), ((84, 84, 4), "uint8"), ((4, 84, 84), "int8")]
)
def test_other_shapes_and_dtypes(shape: Any, dtype: str) -> None:
    columns = [
        Column("frames", (84, 84), "uint8"),
        VirtualColumn("obs", shape, dtype, "frames", FrameStack(4)),
    ]
    with pytest.raises(SpecError) as raised:
        Schema.build(columns, "frames")
    assert str(raised.value) == (
        f"column 'obs': shape {shape} and dtype {dtype} are not those of 4 frames of 'frames', "
        "(84, 84) and uint8; declare shape=(4, 84, 84) or (336, 84) and that dtype"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is 0; give an integer of at least 1"),
        ({"n": 2.0}, "n is 2.0; give an integer of at least 1"),
        ({"n": 4, "pad": None}, "pad is None; give 'zero' or 'edge'"),
        ({"n": 4, "ahead": -1}, "ahead is -1; give an integer of at least 0"),
        ({"n": 4, "ahead": True}, "ahead is True; give an integer of at least 0"),
    ],
)
def test_impossible_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as raised:
        FrameStack(**arguments)
    assert str(raised.value) == message
