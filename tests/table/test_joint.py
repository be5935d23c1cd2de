"""Sampling from several tables at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    EmptyTableError,
    JointTable,
    PrioritizedSampleStrategy,
    PriorityError,
    SpecError,
)
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]


def filled(make_table: MakeTable, first: int, **options: object) -> ArrayMemoryTable:
    """A table with identities from ``first`` on."""
    table = make_table(**options)
    for identity in range(first, first + 20):
        table.add_sequence(identity, small_sequence(identity, 10))
    return table


@pytest.mark.parametrize("layout", ["flat", "batch_time"])
def test_each_gives_its_share_and_its_windows_stand_together(
    make_table: MakeTable, layout: str
) -> None:
    offline, online = (filled(make_table, first, layout=layout) for first in (0, 100))
    sample = JointTable([(1, offline), (3, online)]).sample(40, 3)
    assert sample.sources.tolist() == [0] * 10 + [1] * 30
    assert [len(part) for part in sample.parts if part is not None] == [10, 30]
    flat = {name: column.reshape(40 * 3, -1) for name, column in sample.items()}
    flat["obs"] = sample["obs"].reshape(120, *offline.columns[0].shape)
    identities = flat["obs"].reshape(120, -1)[:, 0].int().view(40, 3)[:, 0]
    assert ((identities >= 100).long() == sample.sources).all()
    if layout == "flat":
        assert torn_windows(sample, 3) == []
    assert sample.weights is None


@pytest.mark.parametrize("count", [1, 3, 10])
def test_shares_come_out_exactly_in_the_long_run(make_table: MakeTable, count: int) -> None:
    tables = [filled(make_table, 100 * number) for number in range(3)]
    joint = JointTable(list(zip((0.5, 0.3, 0.2), tables, strict=True)))
    taken = torch.zeros(3, dtype=torch.int64)
    for _ in range(100):
        sample = joint.sample(count, 2)
        assert len(sample.sources) == count
        taken += torch.bincount(sample.sources, minlength=3)
    wanted = torch.tensor([0.5, 0.3, 0.2]) * 100 * count
    assert (taken - wanted).abs().max() <= 1


def test_weights_and_priorities_are_those_of_the_tables(make_table: MakeTable) -> None:
    uniform = filled(make_table, 0)
    ranked = filled(make_table, 100, sampler=PrioritizedSampleStrategy(alpha=1.0, beta=1.0))
    joint = JointTable([(1, uniform), (1, ranked)])
    sample = joint.sample(20, 2)
    assert sample.weights is not None and sample.weights.tolist() == [1.0] * 20
    priorities = torch.arange(20, dtype=torch.float64)
    assert joint.update_priorities(sample, priorities) == 10
    points = sample.parts[1]
    kept = ranked.sampler.arrays["priority"][points.starts]
    last = {row: value for row, value in zip(points.starts.tolist(), range(10, 20), strict=True)}
    assert kept.tolist() == [last[row] for row in points.starts.tolist()]
    assert joint.update_priorities(sample, torch.ones(20, 2)) == 10
    for wrong in (torch.ones(19), torch.tensor([]), torch.ones(3, 20)):
        with pytest.raises(PriorityError, match="20 windows; give one for each"):
            joint.update_priorities(sample, wrong)


def test_a_table_with_nothing_to_sample_is_an_error(make_table: MakeTable) -> None:
    joint = JointTable([(1, filled(make_table, 0)), (1, make_table())])
    with pytest.raises(EmptyTableError):
        joint.sample(2, 1)
    for _ in range(5):
        with pytest.raises(EmptyTableError):
            joint.sample(3, 1)
    joint.tables[1].add_sequence(0, small_sequence(0, 5))
    # What could not be drawn is not counted as drawn: three windows are shared out afresh.
    assert joint.sample(3, 1).sources.tolist() == [0, 0, 1]
    lopsided = JointTable([(1e9, filled(make_table, 0)), (1, make_table())])
    assert lopsided.sample(2, 1).sources.tolist() == [0, 0]  # nothing was asked of the other


def test_what_cannot_be_joined_is_refused(make_table: MakeTable) -> None:
    table = make_table()
    with pytest.raises(SpecError, match="tables is empty"):
        JointTable([])
    for fraction in (0, -1.0, float("nan"), float("inf"), "half"):
        with pytest.raises(SpecError, match="give a number above 0"):
            JointTable([(fraction, table)])  # type: ignore[list-item]
    other = make_table(columns=[Column("actions", (), "int64")])
    with pytest.raises(SpecError, match="joint tables need the same columns"):
        JointTable([(1, table), (1, other)])
    with pytest.raises(SpecError, match="layout is 'flat' in the first table"):
        JointTable([(1, table), (1, make_table(layout="batch_time"))])


def test_one_table_is_as_good_as_many(make_table: MakeTable) -> None:
    sample = JointTable([(2, filled(make_table, 0))]).sample(7, 4)
    assert torn_windows(sample, 4) == []
    assert np.array_equal(sample.sources.numpy(), np.zeros(7))


def test_it_tells_how_much_there_is_and_whether_a_sample_could_be_had(
    make_table: MakeTable,
) -> None:
    offline, online = filled(make_table, 0), make_table()
    joint = JointTable([(0.5, offline), (0.5, online)])
    assert joint.size() == 200
    assert [joint.can_sample(count, 3) for count in (1, 2)] == [True, False]
    online.add_sequence(1, small_sequence(1, 10))
    assert joint.size() == 210
    assert joint.can_sample(2, 3)
    assert not joint.can_sample(2, 11)
    assert joint.columns == offline.columns
    assert joint.device == offline.device
