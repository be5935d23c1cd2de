"""Columns: what they normalise, and the specs that cannot be."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from shmtable.columns import Column, TagColumn, VirtualColumn
from shmtable.errors import SpecError
from shmtable.mappers import NextElementMapper, NextNElementWrapper, SyntheticDones


def test_normalised() -> None:
    column = Column("obs", [np.int64(3), 4], float)  # type: ignore[list-item]
    assert column.shape == (3, 4)
    assert type(column.shape[0]) is int
    assert column.dtype.name == "float64"
    assert column.row_bytes == 96


@pytest.mark.parametrize("shape", [(), (4,), [2, 3], torch.Size([2, 3]), 4])
def test_shapes(shape: Any) -> None:
    expected = (shape,) if isinstance(shape, int) else tuple(shape)
    assert Column("obs", shape, "uint8").shape == expected


def test_keyword_and_positional_arguments_are_the_same() -> None:
    assert Column("a", (2,), "int8") == Column(name="a", shape=[2], dtype=torch.int8)
    assert VirtualColumn("b", (), bool, "a", SyntheticDones) == VirtualColumn(
        name="b", shape=(), dtype="bool", target_name="a", mapper=SyntheticDones()
    )


def test_kinds_of_column_are_different() -> None:
    assert Column("a", (), "int8") != TagColumn("a", (), "int8")


def test_frozen_and_picklable() -> None:
    column = VirtualColumn("b", (), bool, "a", SyntheticDones)
    assert pickle.loads(pickle.dumps(column)) == column
    with pytest.raises(AttributeError):
        column.name = "c"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (NextElementMapper, NextElementMapper()),
        (NextElementMapper(), NextElementMapper()),
        (NextElementMapper.with_only_last, NextElementMapper(only_last=True)),
        (NextElementMapper.with_only_last(), NextElementMapper(only_last=True)),
        (NextNElementWrapper.with_n(3), NextNElementWrapper(3)),
        (lambda: NextNElementWrapper(2), NextNElementWrapper(2)),
    ],
)
def test_mappers_by_every_spelling(given: Any, made: Any) -> None:
    assert VirtualColumn("next", (), int, "a", given).mapper == made


@pytest.mark.parametrize("name", ["", 3, None, "a\nb", "x" * 256, "\ud800"])
def test_bad_names(name: Any) -> None:
    with pytest.raises(SpecError) as raised:
        Column(name, (), "float32")
    assert str(raised.value) == (
        f"column name is {name!r}; give a string of 1 to 255 printable characters"
    )


@pytest.mark.parametrize("shape", [None, "ab", (1.5,), ("3",), 2.0, [[1]]])
def test_shapes_that_are_none(shape: Any) -> None:
    with pytest.raises(SpecError) as raised:
        Column("obs", shape, "float32")
    assert str(raised.value) == (
        f"column 'obs': shape is {shape!r}; give a tuple of integers, () for a scalar"
    )


@pytest.mark.parametrize("shape", [(0,), (3, -1), (1,) * 31])
def test_impossible_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpecError) as raised:
        Column("obs", shape, "float32")
    assert str(raised.value) == (
        f"column 'obs': shape is {shape}; give at most 30 sizes, each at least 1, () for a scalar"
    )
    assert raised.value.column == "obs"  # type: ignore[attr-defined]


def test_rows_of_more_than_a_tebibyte() -> None:
    assert Column("obs", (2**20, 2**20), "uint8").row_bytes == 2**40
    with pytest.raises(SpecError) as raised:
        Column("obs", (2**20, 2**20), "int16")
    assert str(raised.value) == (
        "column 'obs': one row of shape (1048576, 1048576) and dtype int16 takes 2199023255552 "
        "bytes, at most 1099511627776 are possible; give a smaller shape"
    )


def test_bad_dtypes_name_the_column() -> None:
    with pytest.raises(SpecError, match=r"^column 'obs': dtype 'real' cannot be stored; give"):
        Column("obs", (), "real")


def test_bad_targets() -> None:
    with pytest.raises(SpecError) as raised:
        VirtualColumn("next", (), int, 3, NextElementMapper)  # type: ignore[arg-type]
    assert str(raised.value) == (
        "column 'next': target_name is 3; give the name of a stored column"
    )


def test_mappers_that_cannot_be_made() -> None:
    with pytest.raises(SpecError) as raised:
        VirtualColumn("next", (), int, "a", NextNElementWrapper)
    assert str(raised.value).startswith(
        "column 'next': mapper <class 'shmtable.mappers.next_n.NextNElementWrapper'> cannot be "
        "made without arguments ("
    )
    assert str(raised.value).endswith("; give a mapper, its class, or a function of no arguments")


@pytest.mark.parametrize("mapper", [dict, lambda: None, lambda: NextElementMapper])
def test_things_that_are_no_mappers(mapper: Any) -> None:
    with pytest.raises(SpecError) as raised:
        VirtualColumn("next", (), int, "a", mapper)
    assert str(raised.value) == (
        f"column 'next': {mapper()!r} is no mapper; derive it from shmtable.mappers.Mapper"
    )


@pytest.mark.parametrize("look_ahead", [-1, 1.0, None])
def test_mappers_that_look_nowhere(look_ahead: Any) -> None:
    mapper = NextElementMapper()
    mapper.look_ahead = look_ahead
    with pytest.raises(SpecError) as raised:
        VirtualColumn("next", (), int, "a", mapper)
    assert str(raised.value) == (
        f"column 'next': its mapper looks {look_ahead!r} steps ahead; look_ahead is an integer "
        "of at least 0"
    )
