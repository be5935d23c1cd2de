"""Windows against the plain answer, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shmtable.columns import Column, Schema, TagColumn, VirtualColumn, gather_columns
from shmtable.mappers import NextElementMapper, SyntheticDones
from tests.columns.placing import Placed

LENGTHS = (5, 1, 3, 8)
SCHEMA = Schema.build(
    [
        Column("obs", (2,), "float32"),
        VirtualColumn("next_obs", (2,), "float32", "obs", NextElementMapper),
        TagColumn("terminal", (1,), "int16"),
        VirtualColumn("last_obs", (2,), "float32", "obs", NextElementMapper.with_only_last),
        Column("actions", (), "uint16"),
        VirtualColumn("dones", (1,), bool, "actions", SyntheticDones),
        Column("frames", (2, 3), "bfloat16"),
    ],
    "actions",
)


def make(filler: int = 0) -> Placed:
    sequences: list[dict[str, Any]] = [
        {
            "obs": 100 * slot + np.arange(2 * length + 2, dtype=np.float32).reshape(-1, 2),
            "actions": 1000 * slot + np.arange(length),
            "frames": slot + np.arange(6 * length).reshape(-1, 2, 3),
            "terminal": [-slot],
        }
        for slot, length in enumerate(LENGTHS, start=1)
    ]
    return Placed(SCHEMA, sequences, filler)


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 11])
@pytest.mark.parametrize(("name", "shift"), [("obs", 0), ("obs", 1), ("actions", 0)])
def test_gather(name: str, shift: int, steps: int, clamp: bool) -> None:
    placed = make(filler=255)
    places = placed.places(steps, clamp)
    windows = placed.windows(places, steps, clamp)
    assert len(windows) == len(places)
    if not places:
        assert windows.gather(name, shift).shape[0] == 0
        return
    expected = placed.expected(name, places, steps, shift)
    found = windows.gather(name, shift)
    assert np.array_equal(found.numpy(), expected.reshape(-1, *expected.shape[2:]))
    assert np.array_equal(windows.gather_last(name, shift).numpy(), expected[:, -1])


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 8, 11])
def test_positions_ends_and_validity(steps: int, clamp: bool) -> None:
    placed = make()
    places = placed.places(steps, clamp)
    windows = placed.windows(places, steps, clamp)
    wanted = [
        [(offset + step, int(placed.lengths[slot])) for step in range(steps)]
        for slot, offset in places
    ]
    clamped = [[min(at, length - 1) for at, length in row] for row in wanted]
    ends = [[at >= length - 1 for at, length in row] for row in wanted]
    assert windows.positions().tolist() == sum(clamped, [])
    assert windows.ends().tolist() == sum(ends, [])
    assert windows.ends(last=False).tolist() == [not end for row in ends for end in row]
    assert windows.valid().tolist() == [at < length for row in wanted for at, length in row]
    assert windows.offsets.tolist() == [offset for _, offset in places]
    assert windows.lengths.tolist() == [int(placed.lengths[slot]) for slot, _ in places]
    assert windows.clamped == any(at >= length for row in wanted for at, length in row)


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("name", "ahead"), [("obs", 0), ("obs", 1), ("actions", 0), ("frames", 0)])
def test_any_rows_of_the_sequence(name: str, ahead: int, steps: int, clamp: bool) -> None:
    placed = make(filler=255)
    places = placed.places(steps, clamp)
    windows = placed.windows(places, steps, clamp)
    at = windows.positions()
    distances = torch.tensor([-9, -2, -1, 0, 1, 2, 9])
    found = windows.gather_at(name, at[:, None] + distances, ahead)
    slots = [slot for slot, _ in places for _ in range(steps)]
    expected = [
        [
            placed.sequences[slot][name][min(max(own + distance, 0), LENGTHS[slot] - 1 + ahead)]
            for distance in distances.tolist()
        ]
        for slot, own in zip(slots, at.tolist(), strict=True)
    ]
    assert np.array_equal(found.to(torch.float64).numpy(), np.array(expected))
    for number, distance in enumerate(distances.tolist()):
        single = windows.gather_at(name, at + distance, ahead)
        assert torch.equal(single, found[:, number])


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_what_remains_and_ages(steps: int, clamp: bool) -> None:
    placed = make()
    places = placed.places(steps, clamp)
    windows = placed.windows(places, steps, clamp)
    slots = [slot for slot, _ in places for _ in range(steps)]
    remaining = [LENGTHS[slot] - at for slot, at in zip(slots, windows.positions(), strict=True)]
    assert windows.remaining().tolist() == remaining
    assert windows.ages().tolist() == [
        left - 1 + sum(LENGTHS[slot + 1 :]) for slot, left in zip(slots, remaining, strict=True)
    ]


def test_tags_are_told_from_columns() -> None:
    windows = make().windows([(0, 0)], 1)
    assert windows.is_tag("terminal")
    assert not windows.is_tag("obs")


@pytest.mark.parametrize("layout", ["flat", "batch_time"])
@pytest.mark.parametrize("pad", [None, "edge", "zero"])
@pytest.mark.parametrize("steps", [1, 3, 9])
def test_gather_columns(layout: str, pad: str | None, steps: int) -> None:
    placed = make(filler=255)
    places = placed.places(steps, pad is not None)
    if not places:
        return
    result = gather_columns(
        SCHEMA, placed.windows(places, steps, pad is not None), pad=pad, layout=layout
    )
    names = [column.name for column in SCHEMA.columns]
    assert list(result) == names + (["mask"] if pad else [])
    valid = np.array([[o + t < LENGTHS[s] for t in range(steps)] for s, o in places])
    last = np.array([[o + t >= LENGTHS[s] - 1 for t in range(steps)] for s, o in places])
    expected = {
        "obs": placed.expected("obs", places, steps),
        "next_obs": placed.expected("obs", places, steps, 1),
        "actions": placed.expected("actions", places, steps),
        "dones": last[:, :, None],
        "frames": placed.expected("frames", places, steps),
    }
    after_last = expected["next_obs"][:, -1]
    per_window = {
        "terminal": np.array([[-slot - 1] for slot, _ in places]),
        "last_obs": after_last,
    }
    if pad == "zero":
        expected = {
            name: np.where(valid.reshape(*valid.shape, *[1] * (value.ndim - 2)), value, 0)
            for name, value in expected.items()
        }
    if pad:
        expected["mask"] = valid
    declared = {column.name: column.dtype.torch for column in SCHEMA.columns}
    for name, value in expected.items():
        if layout == "flat":
            value = value.reshape(-1, *value.shape[2:])
        assert result[name].shape == value.shape, name
        assert result[name].dtype == declared.get(name, torch.bool)
        assert np.array_equal(result[name].to(torch.float64).numpy(), value), name
    for name, value in per_window.items():
        assert result[name].dtype == declared[name]
        assert np.array_equal(result[name].numpy(), value), name


@pytest.mark.parametrize("pad", [None, "zero"])
def test_no_two_results_share_memory(pad: str | None) -> None:
    placed = make()
    windows = placed.windows(placed.places(1, False), 1, pad is not None)
    before = {name: region.clone() for name, region in placed.regions.items()}
    first = gather_columns(SCHEMA, windows, pad=pad)
    second = gather_columns(SCHEMA, windows, pad=pad)
    kept = {name: value.clone() for name, value in second.items()}
    for value in first.values():
        value.zero_()
    assert all(torch.equal(second[name], kept[name]) for name in kept)
    assert all(torch.equal(placed.regions[name], before[name]) for name in before)
    storages = [value.untyped_storage().data_ptr() for value in (*first.values(), *second.values())]
    assert len(set(storages)) == len(storages)
