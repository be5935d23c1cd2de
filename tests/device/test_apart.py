"""Nothing of a table takes tensors of a device for the CPU's, or looks at them in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    AgeMapper,
    BurnIn,
    Column,
    FrameStack,
    NextNElementWrapper,
    NStepDiscount,
    NStepElementMapper,
    NStepReturn,
    PositionMapper,
    PreviousElementMapper,
    PrioritizedSampleStrategy,
    TagColumn,
    VirtualColumn,
)
from shmtable import table as table_module
from shmtable.columns import DTYPES
from tests.device.apart import ApartBackend, Far
from tests.device.promises import copied_bit_by_bit, of_dtype
from tests.tables import small_columns, small_sequence

MakeTable = Callable[..., Any]


@pytest.fixture
def pair(make_table: MakeTable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes two tables of one seed: in shared memory, and apart."""

    def make(**options: Any) -> tuple[Any, Any]:
        made = []
        for backend in (None, ApartBackend()):
            monkeypatch.setattr(table_module, "storage_backend", lambda *_, b=backend: b)
            made.append(make_table(**{"seed": 5, **options}))
        return made[0], made[1]

    return make


def computed() -> list[Column]:
    rewards = ((), "float32", "rewards")
    return [
        *small_columns(),
        Column("flag", (), "bool"),
        Column("state", (4,), "float32", first_only=True),
        TagColumn("over", (), "bool"),
        VirtualColumn("returns", *rewards, NStepReturn(3, 0.5)),
        VirtualColumn("cut", *rewards, NStepReturn(3, 0.5, "flag")),
        VirtualColumn("tagged", *rewards, NStepReturn(3, 0.5, "over")),
        VirtualColumn("discount", *rewards, NStepDiscount(3, 0.5, "flag")),
        VirtualColumn("by_tag", *rewards, NStepDiscount(3, 0.5, "over")),
        VirtualColumn("by_end", *rewards, NStepDiscount(3, 0.5)),
        VirtualColumn("bootstrap", (3,), "float32", "obs", NStepElementMapper(3)),
        VirtualColumn("stack", (3, 3), "float32", "obs", FrameStack(3)),
        VirtualColumn("edges", (9,), "float32", "obs", FrameStack(3, pad="edge", ahead=1)),
        VirtualColumn("previous", *rewards, PreviousElementMapper()),
        VirtualColumn("before", (), "bool", "flag", PreviousElementMapper()),
        VirtualColumn("position", (), "int64", "obs", PositionMapper()),
        VirtualColumn("age", (1,), "float64", "obs", AgeMapper()),
        VirtualColumn("burned", (), "bool", "obs", BurnIn(2)),
        VirtualColumn("next_1", (3,), "float32", "obs", NextNElementWrapper(1)),
    ]


def given(identity: int, length: int) -> dict[str, Any]:
    flags = np.arange(length) % 4 == 3
    state = np.full((length, 4), identity, np.float32)
    over = identity % 2 == 0
    return {**small_sequence(identity, length), "flag": flags, "state": state, "over": over}


def assert_same(near: dict[str, Any], far: dict[str, Any]) -> None:
    assert near.keys() == far.keys()
    for name, column in near.items():
        assert isinstance(far[name], Far), name
        assert far[name].dtype == column.dtype and far[name].shape == column.shape, name
        assert torch.equal(far[name].cpu(), column), name


@pytest.mark.parametrize("layout", ["flat", "batch_time"])
@pytest.mark.parametrize("pad", [None, "zero", "edge"])
def test_every_way_of_computing_a_column(
    pair: Callable[..., Any], tmp_path: Path, pad: str | None, layout: str
) -> None:
    tables = pair(columns=computed(), pad=pad, layout=layout, sampler=PrioritizedSampleStrategy())
    for table in tables:
        for identity in range(12):
            table.add_sequence(identity, given(identity, 4 + identity))
    for steps in (1, 3, 6 if pad else 3):
        near, far = (table.sample(32, steps) for table in tables)
        assert_same(near, far)
        assert torch.equal(far.weights.cpu(), near.weights)
        for table, sample in zip(tables, (near, far), strict=True):
            assert table.update_priorities(sample.points, 1 + sample["rewards"].view(32, -1)[:, 0])
            table.update(sample.points, "rewards", sample["rewards"] + 1)
            table.update(sample.points, "obs", sample["obs"].view(32, steps, 3) * 2)
    for number, table in enumerate(tables):
        table.store(tmp_path / str(number))
        table.clear()
        table.restore(tmp_path / str(number))
    for identity in tables[0].identities():
        assert_same(*(table.sequence(identity) for table in tables))


@pytest.mark.parametrize("name", list(DTYPES))
def test_every_dtype(pair: Callable[..., Any], name: str) -> None:
    near, far = pair(**of_dtype(name))
    copied_bit_by_bit(near, far, lambda tensor: Far(tensor.clone()))


def test_windows_drawn_anew(pair: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _, table = pair(columns=computed(), pad="zero", sampler=PrioritizedSampleStrategy())
    for identity in range(12):
        table.add_sequence(identity, given(identity, 4 + identity))
    original, going = ApartBackend.select, list(range(6))

    def select(self: ApartBackend, rows: Any, index: Any) -> Any:
        found = original(self, rows, index)
        while going:
            table.remove(going.pop())
        return found

    monkeypatch.setattr(ApartBackend, "select", select)
    sample = table.sample(32, 6)
    assert not going and int(sample.points.identities.min()) >= 6
    obs = sample["obs"].cpu().view(32, 6, 3)
    assert obs[:, 0, 0].tolist() == sample.points.identities.tolist()
    assert isinstance(sample.weights, Far)


def test_delivered_to_the_cpu(pair: Callable[..., Any]) -> None:
    near, far = pair(columns=computed(), device="cpu", sampler=PrioritizedSampleStrategy())
    for table in (near, far):
        for identity in range(6):
            table.add_sequence(identity, given(identity, 9))
    one, other = near.sample(16, 3), far.sample(16, 3)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(one.weights, other.weights)


def test_the_stand_in_refuses_what_a_device_refuses() -> None:
    far, near = Far(torch.arange(4)), torch.arange(4)
    with pytest.raises(RuntimeError, match="is the CPU's"):
        far + near
    with pytest.raises(RuntimeError, match="would wait"):
        far.sum().item()
    with pytest.raises(RuntimeError, match="would wait"):
        far[far > 1]
    with pytest.raises(RuntimeError, match="not for"):
        Far(torch.zeros(3, dtype=torch.uint16)).sum()
    with pytest.raises((RuntimeError, TypeError)):
        far.numpy()
    assert (far + near[1]).cpu().tolist() == [1, 2, 3, 4]
