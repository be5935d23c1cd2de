"""Derived columns through whole tables: over churn, by name, pickled, stored and restored."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    AgeMapper,
    ArrayMemoryTable,
    BurnIn,
    Column,
    FrameStack,
    NStepDiscount,
    NStepElementMapper,
    NStepReturn,
    PositionMapper,
    PreviousElementMapper,
    SampleResult,
    TableSerializationVersion,
    TagColumn,
    VirtualColumn,
)
from tests.mappers import reference

MakeTable = Callable[..., ArrayMemoryTable]
FRAME = (2, 3)
STACK, N, GAMMA = 3, 2, 0.5


def columns() -> list[Column]:
    return [
        Column("frames", FRAME, "uint8"),
        VirtualColumn("obs", (STACK, *FRAME), "uint8", "frames", FrameStack(STACK)),
        VirtualColumn("next_obs", (STACK, *FRAME), "uint8", "frames", FrameStack(STACK, ahead=1)),
        VirtualColumn("later_obs", (STACK, *FRAME), "uint8", "frames", FrameStack(STACK, ahead=N)),
        VirtualColumn("later_frame", FRAME, "uint8", "frames", NStepElementMapper(N)),
        Column("actions", (), "int64"),
        VirtualColumn("previous", (), "int64", "actions", PreviousElementMapper),
        Column("rewards", (), "float32"),
        TagColumn("terminated", (), bool),
        VirtualColumn("returns", (), "float32", "rewards", NStepReturn(N, GAMMA, "terminated")),
        VirtualColumn("discounts", (), "float32", "rewards", NStepDiscount(N, GAMMA, "terminated")),
        VirtualColumn("position", (), "int64", "actions", PositionMapper),
        VirtualColumn("age", (), "int64", "actions", AgeMapper),
        VirtualColumn("burn_in", (), bool, "actions", BurnIn(1)),
        Column("state", (2,), "float32", first_only=True),
    ]


def sequence(identity: int, length: int) -> dict[str, Any]:
    steps = np.arange(length + 1)
    return {
        "frames": (identity * 31 + steps[:, None, None] * 7 + np.arange(6).reshape(FRAME)) % 251,
        "actions": identity * 1000 + steps[:-1],
        "rewards": (identity + steps[:-1]).astype(np.float32),
        "terminated": identity % 2 == 0,
        "state": np.stack([steps[:-1], steps[:-1] * 0 + identity], 1),
    }


def assert_right(batch: SampleResult, steps: int, added: list[tuple[int, int]]) -> None:
    """Every derived column is what the sequences' own numbers say.

    Args:
        batch: a sample.
        steps: per window.
        added: identity and length of all sequences ever added, in order.
    """
    lengths = dict(added)
    after = {
        identity: sum(length for _, length in added[place + 1 :])
        for place, (identity, _) in enumerate(added)
    }
    points = batch.points
    assert points is not None
    rows = 0
    for window, (identity, offset) in enumerate(
        zip(points.identities.tolist(), points.offsets.tolist(), strict=True)
    ):
        length = lengths[identity]
        one = sequence(identity, length)
        ends = [False] * (length - 1) + [bool(one["terminated"])]
        assert batch["state"][window].tolist() == [offset, identity]
        for step, at in enumerate(reference.steps_of(offset, length, steps)):
            total, discount, place = reference.n_step(one["rewards"], ends, at, N, GAMMA)
            expected = {
                "actions": one["actions"][at],
                "previous": one["actions"][at - 1] if at else 0,
                "returns": total,
                "discounts": discount,
                "position": at,
                "age": after[identity] + length - 1 - at,
                "burn_in": step < 1,
                "later_frame": one["frames"][place],
                "obs": reference.stack(one["frames"], length, at, STACK, "zero", 0),
                "next_obs": reference.stack(one["frames"], length, at, STACK, "zero", 1),
                "later_obs": reference.stack(one["frames"], length, at, STACK, "zero", N),
            }
            for name, value in expected.items():
                assert np.array_equal(batch[name][rows].numpy(), value), (name, identity, at)
            rows += 1


def lengths_of(count: int) -> list[tuple[int, int]]:
    random = np.random.default_rng(3)
    return [(identity, int(random.integers(1, 12))) for identity in range(count)]


@pytest.mark.parametrize("pad", [None, "edge"])
def test_over_churn(make_table: MakeTable, pad: str | None) -> None:
    table = make_table(columns=columns(), maxlen=60, pad=pad)
    added: list[tuple[int, int]] = []
    for identity, length in lengths_of(60):
        table.add_sequence(identity, sequence(identity, length))
        added.append((identity, length))
        assert_right(table.sample(6, 1), 1, added)
        if pad or max(lengths for _, lengths in added[-5:]) >= 4:
            assert_right(table.sample(3, 4), 4, added)


def test_by_name_and_pickled(make_table: MakeTable, unique_name: Callable[[], str]) -> None:
    name = unique_name()
    table = make_table(columns=columns(), maxlen=100, name=name)
    added = lengths_of(10)
    for identity, length in added:
        table.add_sequence(identity, sequence(identity, length))
    with ArrayMemoryTable.attach(name) as attached, pickle.loads(pickle.dumps(table)) as received:
        for other in (attached, received):
            assert other.columns == tuple(columns())
            assert_right(other.sample(20, 2), 2, added)


def test_stored_and_restored(make_table: MakeTable, tmp_path: Path) -> None:
    added = lengths_of(10)
    table = make_table(columns=columns(), maxlen=100)
    for identity, length in added:
        table.add_sequence(identity, sequence(identity, length))
    path = tmp_path / "file"
    table.store(path, TableSerializationVersion.V1)
    again = make_table(columns=columns(), maxlen=100)
    again.add_sequence(1000, sequence(1000, 5))
    again.restore(path)
    assert_right(again.sample(30, 2), 2, added)
    # The content is what counts: another table may derive other things from it.
    plain = make_table(columns=columns()[:1] + columns()[5:6], maxlen=100)
    with pytest.warns(UserWarning, match="which are left out"):
        plain.restore(path, strict=False)
    assert plain.size() == again.size()


def test_age_goes_on_counting(make_table: MakeTable) -> None:
    table = make_table(columns=columns(), maxlen=100)
    table.add_sequence(1, sequence(1, 3))
    table.add_sequence(2, sequence(2, 4))
    table.remove(2)
    assert set(table.sample(50, 1)["age"].tolist()) == {4, 5, 6}
    table.add_sequence(3, sequence(3, 2))
    assert set(table.sample(90, 1)["age"].tolist()) == {0, 1, 6, 7, 8}
    table.clear()
    table.add_sequence(4, sequence(4, 1))
    assert table.sample(1, 1)["age"].tolist() == [0]


def test_padding_zeroes_derived_columns_too(make_table: MakeTable) -> None:
    table = make_table(columns=columns(), maxlen=100, pad="zero", layout="batch_time")
    table.add_sequence(2, sequence(2, 2))
    batch = table.sample(2, 4)
    mask = batch["mask"]
    assert mask.sum() < mask.numel()
    for name in ("obs", "next_obs", "returns", "previous", "position", "age", "burn_in"):
        assert not batch[name][~mask].to(torch.float64).any(), name
    assert batch["state"].shape == (2, 2)
