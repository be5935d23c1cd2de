"""How often a sample goes to the device: twice, however many columns there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    Column,
    FrameStack,
    PositionMapper,
    PrioritizedSampleStrategy,
    TagColumn,
    VirtualColumn,
)
from shmtable import table as table_module
from tests.device.backends import CountingBackend
from tests.tables import small_columns, small_sequence, torn_windows

MakeTable = Callable[..., Any]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> CountingBackend:
    backend = CountingBackend()
    monkeypatch.setattr(table_module, "storage_backend", lambda device, directory: backend)
    return backend


def filled(make_table: MakeTable, **options: Any) -> Any:
    table = make_table(**options)
    more = {"who": 7} if any(column.name == "who" for column in table.columns) else {}
    for identity in range(8):
        table.add_sequence(identity, {**small_sequence(identity, 10), **more})
    return table


def test_columns_as_they_are_take_one(make_table: MakeTable, counting: CountingBackend) -> None:
    columns = [Column("obs", (3,), "float32"), Column("actions", (), "int64"),
               Column("rewards", (), "float32"), TagColumn("who", (), "int64")]  # fmt: skip
    table = make_table(columns=columns, seed=3)
    for identity in range(8):
        given = small_sequence(identity, 10)
        table.add_sequence(identity, {**given, "who": identity})
    counting.sent.clear()
    sample = table.sample(16, 4)
    assert counting.sent == [2 * 16 * 8]  # where the windows are, and whose
    assert sample["who"].tolist() == sample["obs"].view(16, 4, 3)[:, 0, 0].tolist()


def test_what_is_computed_and_weights_take_another(
    make_table: MakeTable, counting: CountingBackend
) -> None:
    columns = [
        *small_columns(),
        TagColumn("who", (), "int64"),
        VirtualColumn("position", (), "int64", "obs", PositionMapper()),
    ]
    table = filled(make_table, columns=columns, sampler=PrioritizedSampleStrategy(), pad="zero")
    counting.sent.clear()
    sample = table.sample(16, 4)
    assert len(counting.sent) == 2
    assert torn_windows(sample, 4) == []
    assert all(counting.has(tensor) for tensor in [*sample.values(), sample.weights])


def test_weights_of_windows_drawn_anew_come_along(
    make_table: MakeTable, counting: CountingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = filled(make_table, sampler=PrioritizedSampleStrategy(beta=1.0), maxlen=80)
    points = table.sample(8, 4).points
    table.update_priorities(points, np.arange(1.0, 9.0))
    original, changes = CountingBackend.select, [1]

    def select(self: CountingBackend, rows: Any, index: Any) -> Any:
        found = original(self, rows, index)
        if changes:
            changes.pop()
            for identity in range(4):
                table.remove(identity)
        return found

    monkeypatch.setattr(CountingBackend, "select", select)
    sample = table.sample(32, 4)
    assert changes == [] and torn_windows(sample, 4) == []
    assert int(sample.points.identities.min()) >= 4
    assert counting.has(sample.weights)
    wanted = table._core.sampler.weights(sample.points)
    assert torch.equal(sample.weights, wanted)


def test_looking_back_takes_one_for_each_reach(
    make_table: MakeTable, counting: CountingBackend
) -> None:
    columns = [
        *small_columns(),
        VirtualColumn("stack", (4, 3), "float32", "obs", FrameStack(4, pad="edge")),
        VirtualColumn("next_stack", (4, 3), "float32", "obs", FrameStack(4, pad="edge", ahead=1)),
    ]
    table = filled(make_table, columns=columns)
    counting.sent.clear()
    sample = table.sample(16, 4)
    assert len(counting.sent) == 4
    assert torch.equal(sample["stack"][:, -1], sample["obs"])
    assert torch.equal(sample["next_stack"][:, -1], sample["next_obs"])
