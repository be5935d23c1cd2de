"""Rows and windows round trip bit by bit, and nothing else is touched."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shmtable.columns import (
    DTYPES,
    Column,
    Converter,
    CpuStorage,
    Schema,
    TagColumn,
    VirtualColumn,
)
from shmtable.columns import storage as storage_module
from shmtable.mappers import NextElementMapper, NextNElementWrapper, SyntheticDones
from tests.columns.placing import Placed, bits


@pytest.fixture(params=["by numpy", "by numpy, though large", "by torch"])
def way_of_copying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are copied by numpy where they are few, or where torch has a single thread."""
    monkeypatch.setattr(storage_module, "_ALONE_BYTES", 2**22 if request.param == "by numpy" else 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2 if request.param == "by torch" else 1)


def random_values(dtype: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Any bit pattern there is, NaN and subnormal numbers too."""
    known = DTYPES[dtype]
    count = int(np.prod(shape)) * known.itemsize
    data = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 256, count, np.uint8)
    return torch.from_numpy(data).view(known.torch).view(shape)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=10)
@given(
    shape=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    length=st.integers(1, 6),
    tensor=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_round_trip(
    dtype: str, shape: tuple[int, ...], length: int, tensor: bool, seed: int
) -> None:
    schema = Schema.build([Column("x", shape, dtype), TagColumn("t", shape, dtype)], "x")
    rows = random_values(dtype, (length, *shape), seed)
    tag = random_values(dtype, shape, seed + 1)
    as_given = (lambda v: v) if tensor or not DTYPES[dtype].exact_numpy else torch.Tensor.numpy
    placed = Placed(schema, [{"x": as_given(rows), "t": as_given(tag)}] * 2, filler=1)
    storage, start = placed.storage, int(placed.starts[1])

    read = storage.read("x", start, length)
    assert read.dtype == rows.dtype
    assert read.shape == rows.shape
    assert torch.equal(bits(read), bits(rows))
    gathered = storage.gather("x", np.array([start]), length)
    assert gathered.dtype == rows.dtype
    assert gathered.shape == rows.shape
    assert torch.equal(bits(gathered), bits(rows))
    assert torch.equal(bits(storage.read_tag("t", 1)), bits(tag))
    assert storage.read_tag("t", 1).shape == shape
    tags = storage.gather_tags("t", np.array([1, 0, 1]))
    assert tags.dtype == tag.dtype
    assert tags.shape == (3, *shape)
    assert torch.equal(bits(tags), bits(tag).repeat(3))


def test_write_touches_its_own_rows_only() -> None:
    schema = Schema.build([Column("x", (3,), "int16"), TagColumn("t", (), "int32")], "x")
    regions = {name: torch.full((60,), 7, dtype=torch.uint8) for name in "xt"}
    storage = CpuStorage(schema, regions, regions)
    storage.write(4, 5, Converter(schema, 10).prepare({"x": np.zeros((2, 3), int), "t": 0}))
    assert regions["x"].tolist() == [7] * 24 + [0] * 12 + [7] * 24
    assert regions["t"].tolist() == [7] * 20 + [0] * 4 + [7] * 36


@pytest.mark.usefixtures("way_of_copying")
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((), "float32"), ((3,), "float32"), ((3,), "uint8"), ((5,), "bfloat16"), ((2, 2), "bool"),
     ((7,), "float8_e4m3fn"), ((), "uint16"), ((2,), "complex128")],
)  # fmt: skip
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("shift", [0, 2])
def test_windows_by_either_way_of_copying(
    shape: tuple[int, ...],
    dtype: str,
    length: int,
    shift: int,
) -> None:
    schema = Schema.build([Column("x", shape, dtype)], "x")
    values = random_values(dtype, (20, *shape), 0)
    region = bits(values).clone()
    storage = CpuStorage(schema, {"x": region}, {})
    starts = np.array([0, 20 - length - shift, 5, 5])
    expected = torch.cat(
        [region.view(20, -1)[s + shift : s + shift + length] for s in starts.tolist()]
    )
    found = storage.gather("x", starts, length, shift)
    assert found.dtype == values.dtype
    assert found.shape == (4 * length, *shape)
    assert torch.equal(bits(found), expected.reshape(-1))
    bits_before = region.clone()
    found.view(torch.uint8).zero_()
    assert torch.equal(region, bits_before)


def test_reads_are_copies() -> None:
    schema = Schema.build([Column("x", (2,), "int16"), TagColumn("t", (2,), "int16")], "x")
    regions = {name: torch.ones(40, dtype=torch.uint8) for name in "xt"}
    storage = CpuStorage(schema, regions, regions)
    storage.read("x", 1, 3).zero_()
    storage.read_tag("t", 2).zero_()
    assert all(region.all() for region in regions.values())


@given(
    runs=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=8),
    shuffled=st.randoms(use_true_random=False),
    short_bytes=st.sampled_from([0, 20, 10**6]),
)
def test_runs_of_rows_as_bytes(
    runs: list[tuple[int, int]], shuffled: Random, short_bytes: int
) -> None:
    """Whether they lie together, apart, or in another order; as they are, or copied."""
    schema = Schema.build([Column("x", (3,), "int16"), TagColumn("t", (), "int8")], "x")
    memory = torch.arange(80 * 6).to(torch.uint8)
    storage = CpuStorage(schema, {"x": memory}, {"t": memory})
    gaps, lengths = np.array(runs, np.int64).reshape(-1, 2).T
    places = list(zip(np.cumsum(gaps + lengths) - lengths, lengths, strict=True))
    shuffled.shuffle(places)
    starts, counts = np.array(places, np.int64).reshape(-1, 2).T
    expected = b"".join(
        memory.numpy()[6 * start : 6 * (start + count)].tobytes() for start, count in places
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(storage_module, "_SHORT_BYTES", short_bytes)
        assert b"".join(storage.bytes_of("x", starts, counts)) == expected
    with storage.filling("x", starts, counts) as targets:
        assert b"".join(targets) == expected
        together = sum(one + n != two for (one, n), (two, _) in itertools.pairwise(places))
        assert len(targets) == (together + 1 if places else 0)
        for target in targets:
            target[:] = bytes(len(target))
    assert not any(storage.read("x", start, count).any() for start, count in places)
    with storage.filling("t", np.array([7]), np.array([2])) as targets:
        assert bytes(targets[0]) == bytes(memory[7:9])


@pytest.mark.usefixtures("way_of_copying")
def test_no_window_beyond_the_region() -> None:
    schema = Schema.build([Column("x", (), "int32")], "x")
    storage = CpuStorage(schema, {"x": torch.zeros(40, dtype=torch.uint8)}, {})
    assert len(storage.gather("x", np.array([7]), 2, 1)) == 2
    with pytest.raises(IndexError):
        storage.gather("x", np.array([8]), 2, 1)
    with pytest.raises(IndexError):
        storage.read("x", 8, 3)
    with pytest.raises(IndexError):
        storage.read("x", 1 << 40, 1)


def test_the_views_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "_MAX_VIEWS", 3)
    schema = Schema.build([Column("x", (), "int32")], "x")
    region = torch.arange(50, dtype=torch.int32)
    storage = CpuStorage(schema, {"x": region.view(torch.uint8)}, {})
    for length in [*range(1, 9), 1, 8]:
        found = storage.gather("x", np.array([2]), length)
        assert found.tolist() == list(range(2, 2 + length))
        assert len(storage._views) <= 3


def test_address_space_that_is_never_touched(tmp_path: Path) -> None:
    # 32 GiB of which a few rows are used: a copy of the whole could not pass unnoticed.
    path, size = tmp_path / "sparse", 2**35
    path.touch()
    os.truncate(path, size)
    memory = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
    half = size // 2
    schema = Schema.build([Column("x", (64, 4), "float32"), Column("y", (), "int64")], "x")
    regions = {"x": memory.narrow(0, 0, half), "y": memory.narrow(0, half, half)}
    storage = CpuStorage(schema, regions, {})
    values = np.arange(12, dtype=np.float32).reshape(3, 1, 4).repeat(64, 1)
    rows = {"x": values, "y": [7, 8, 9]}
    last = half // 1024 - 3
    storage.write(last, 0, Converter(schema, 10).prepare(rows))
    assert storage.gather("x", np.array([last]), 3)[:, 5, 0].tolist() == [0.0, 4.0, 8.0]
    assert storage.gather("y", np.array([last]), 2, 1).tolist() == [8, 9]
    assert storage.gather("y", np.array([last]), 1, 2).tolist() == [9]
    assert storage.read("y", last, 3).tolist() == [7, 8, 9]
    assert path.stat().st_blocks * 512 < 2**20


def test_extra_rows_are_read_back() -> None:
    schema = Schema.build([Column("obs", (), float), Column("actions", (), int)], "actions")
    sequences: list[Any] = [{"obs": [1.0, 2.0, 3.0], "actions": [4, 5]}] * 2
    placed = Placed(schema, sequences)
    assert placed.storage.read("obs", int(placed.starts[1]), 3).tolist() == [1.0, 2.0, 3.0]


# -- columns that share their rows ---------------------------------------------------------------


def _side_by_side(*virtual: VirtualColumn) -> tuple[Placed, list[dict[str, Any]]]:
    """Four columns of different sizes and types in one region, next to a large one."""
    columns = [
        Column("flag", (), "bool"),
        Column("obs", (3, 2), "float32"),
        Column("half", (5,), "bfloat16"),
        Column("image", (9, 9, 4), "uint8"),
        Column("wide", (), "int64"),
    ]
    sequences = [
        {
            column.name: random_values(column.dtype.name, (20, *column.shape), seed)
            for seed, column in enumerate(columns, 5 * number)
        }
        for number in range(3)
    ]
    schema = Schema.build([*columns, *virtual], "flag")
    for name, count in schema.look_ahead.items():
        if count:  # as for a table: so many rows more
            dtype = next(column.dtype.name for column in columns if column.name == name)
            for number, sequence in enumerate(sequences):
                more = random_values(dtype, (count, *sequence[name].shape[1:]), 90 + number)
                sequence[name] = torch.cat([sequence[name], more])
    return Placed(schema, sequences, filler=3), sequences


@pytest.mark.usefixtures("way_of_copying")
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("shift", [0, 2])
def test_side_by_side(length: int, shift: int) -> None:
    placed, sequences = _side_by_side()
    assert len(placed.schema.regions) == 2
    offsets = np.array([0, 20 - length - shift, 5, 5])
    slots = np.array([0, 2, 1, 1])
    starts = placed.starts[slots] + offsets
    for name in sequences[0]:
        expected = torch.cat(
            [
                sequences[slot][name][offset + shift : offset + shift + length]
                for slot, offset in zip(slots.tolist(), offsets.tolist(), strict=True)
            ]
        )
        for _ in range(2):  # what is asked for twice is there twice
            found = placed.storage.gather(name, starts, length, shift)
            assert found.dtype == expected.dtype
            assert found.shape == expected.shape
            assert torch.equal(bits(found), bits(expected))
            found.zero_()


@pytest.mark.usefixtures("way_of_copying")
@pytest.mark.parametrize("length", [1, 4])
def test_columns_that_are_copied_together(length: int) -> None:
    placed, _ = _side_by_side(
        VirtualColumn("next_obs", (3, 2), "float32", "obs", NextElementMapper),
        VirtualColumn("next_half", (5,), "bfloat16", "half", NextElementMapper),
        # One more in a row, and one that leaves a gap.
        VirtualColumn("second", (3, 2), "float32", "obs", NextNElementWrapper(2)),
        VirtualColumn("fourth", (5,), "bfloat16", "half", NextNElementWrapper(4)),
        VirtualColumn("again", (3, 2), "float32", "obs", NextElementMapper),
        VirtualColumn("next_image", (9, 9, 4), "uint8", "image", NextElementMapper),
        VirtualColumn("last", (), "int64", "wide", NextElementMapper.with_only_last),
        VirtualColumn("end", (), "bool", "wide", SyntheticDones),
    )
    schema, storage = placed.schema, placed.storage
    # The second of two that are the same rows is not among them, and neither is what is computed.
    assert [column.name for column in schema.computed] == ["again", "last", "end"]
    starts = placed.starts[np.array([0, 2, 1, 1])] + np.array([0, 19 - length, 5, 5])
    for _ in range(2):  # the second time by what the first has worked out
        found: dict[str, torch.Tensor] = {}
        storage.gather_copied(starts, length, found)
        assert found.keys() == schema.copied.keys()
        for name, (stored, shift) in schema.copied.items():
            expected = storage.gather(stored, starts, length, shift)
            assert found[name].dtype == expected.dtype
            assert found[name].shape == expected.shape
            assert torch.equal(bits(found[name]), bits(expected))
        for name in found:  # nobody else has the same elements
            others = {other: found[other].clone() for other in found if other != name}
            found[name].zero_()
            assert all(torch.equal(bits(found[n]), bits(others[n])) for n in others)


def test_many_numbers_and_lengths_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "_MAX_VIEWS", 3)
    placed, sequences = _side_by_side()
    for count, length in ((1, 1), (2, 1), (2, 3), (5, 4), (1, 1), (3, 2)):
        found: dict[str, torch.Tensor] = {}
        placed.storage.gather_copied(np.repeat(placed.starts[1], count), length, found)
        for name, value in sequences[1].items():
            expected = torch.cat([value[:length]] * count)
            assert torch.equal(
                bits(found[name].clone(memory_format=torch.contiguous_format)), bits(expected)
            )


@pytest.mark.parametrize("short_bytes", [0, 10**6])
def test_side_by_side_in_bytes(monkeypatch: pytest.MonkeyPatch, short_bytes: int) -> None:
    monkeypatch.setattr(storage_module, "_SHORT_BYTES", short_bytes)
    placed, sequences = _side_by_side()
    starts, counts = placed.starts[[2, 0]] + 1, np.array([19, 7])
    for name in sequences[0]:
        expected = b"".join(
            bits(sequences[slot][name][1 : 1 + count]).numpy().tobytes()
            for slot, count in ((2, 19), (0, 7))
        )
        assert b"".join(placed.storage.bytes_of(name, starts, counts)) == expected
    new = np.arange(26, dtype=np.int64)
    with placed.storage.filling("wide", starts, counts) as targets:
        written = memoryview(new).cast("B")
        for target in targets:
            target[:] = written[: len(target)]
            written = written[len(target) :]
    assert placed.storage.read("wide", int(starts[0]), 19).tolist() == list(range(19))
    assert placed.storage.read("wide", int(starts[1]), 7).tolist() == list(range(19, 26))
    for name in ("flag", "obs", "half"):
        read = placed.storage.read(name, int(placed.starts[2]), 20)
        assert torch.equal(bits(read), bits(sequences[2][name]))


def test_writing_side_by_side_touches_nothing_else() -> None:
    schema = Schema.build([Column("x", (3,), "int16"), Column("y", (), "int16")], "x")
    assert schema.regions == {"x": 8}
    region = torch.full((64,), 7, dtype=torch.uint8)
    storage = CpuStorage(schema, {"x": region}, {})
    rows = {"x": np.zeros((2, 3), np.int16), "y": np.array([1, 2, 3], np.int16)}
    storage.write(4, 0, Converter(schema, 10).prepare(rows))
    assert (
        region.tolist()
        == [7] * 32
        + [0] * 6
        + [1, 0]
        + [0] * 6
        + [2, 0]
        + [7] * 6
        + [
            3,
            0,
        ]
        + [7] * 8
    )
