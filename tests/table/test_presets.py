"""Tables for the usual ways to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    PrioritizedSampleStrategy,
    RateLimitedError,
    SpecError,
    UniformSampleStrategy,
    on_policy_queue,
    prioritized_replay,
    r2d2_replay,
    uniform_replay,
)
from tests.tables import small_columns, small_sequence, torn_windows

Keep = Callable[[ArrayMemoryTable], ArrayMemoryTable]


@pytest.fixture
def keep() -> Iterator[Keep]:
    """Checks and closes tables afterwards."""
    kept: list[ArrayMemoryTable] = []

    def keep(table: ArrayMemoryTable) -> ArrayMemoryTable:
        kept.append(table)
        return table

    yield keep
    for table in kept:
        assert table.check() == []
        table.close()


def fill(table: ArrayMemoryTable, count: int, length: int, **options: Any) -> None:
    for identity in range(count):
        table.add_sequence(identity, small_sequence(identity, length), **options)


def test_uniform(keep: Keep) -> None:
    table = keep(uniform_replay(small_columns(), 50))
    fill(table, 10, 10)
    assert table.identities().tolist() == [5, 6, 7, 8, 9]
    assert torn_windows(table.sample(20, 3), 3) == []


def test_prioritized(keep: Keep) -> None:
    table = keep(prioritized_replay(small_columns(), 100, alpha=1.0, beta=0.5, seed=1))
    fill(table, 5, 10)
    sample = table.sample(40, 2)
    assert sample.weights is not None and sample.weights.tolist() == [1.0] * 40
    assert table.update_priorities(sample.points, torch.zeros(40)) == 40
    again = table.sample(40, 2)
    drawn = set(zip(sample.points.slots.tolist(), sample.points.offsets.tolist(), strict=True))
    assert not drawn & set(
        zip(again.points.slots.tolist(), again.points.offsets.tolist(), strict=True)
    )
    sampler = table.sampler
    assert isinstance(sampler, PrioritizedSampleStrategy)
    assert (sampler.alpha, sampler.beta) == (1.0, 0.5)


def test_r2d2(keep: Keep) -> None:
    columns = [*small_columns(), Column("state", (4,), "float32", first_only=True)]
    table = keep(r2d2_replay(columns, 1000, burn_in=2, alpha=1.0, seed=1))
    for identity in range(10):
        sequence = {**small_sequence(identity, 6), "state": torch.full((6, 4), float(identity))}
        table.add_sequence(identity, sequence, priority=100.0 if identity == 7 else 1e-3)
    sample = table.sample(12, 6)
    assert sample["obs"].shape == (12, 6, 3)
    assert sample["state"].shape == (12, 4)
    assert sample["burn_in"].tolist() == [[True] * 2 + [False] * 4] * 12
    assert (sample["state"] == 7).float().mean() > 0.8
    errors = torch.zeros(12, 6)
    assert table.update_priorities(sample.points, errors) == 12


def test_a_queue(keep: Keep) -> None:
    table = keep(on_policy_queue(small_columns(), size=3, steps=5))
    fill(table, 3, 5)
    with pytest.raises(RateLimitedError):
        table.add_sequence(3, small_sequence(3, 5), timeout_s=0)
    sample = table.sample(2, 5)
    assert sample["obs"].shape == (2, 5, 3)
    assert sample.points.identities.tolist() == [0, 1]
    table.add_sequence(3, small_sequence(3, 5), timeout_s=0)
    assert table.sample(2, 5).points.identities.tolist() == [2, 3]
    assert table.size() == 0


def test_what_is_given_comes_first(keep: Keep) -> None:
    table = keep(
        prioritized_replay(small_columns(), 10, sampler=UniformSampleStrategy(), pad="edge")
    )
    fill(table, 1, 2)
    assert table.sample(1, 4)["mask"].tolist() == [True, True, False, False]


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(SpecError, match="size is 0"):
        on_policy_queue(small_columns(), 0, 5)
    with pytest.raises(SpecError, match="steps is -1"):
        on_policy_queue(small_columns(), 3, -1)
