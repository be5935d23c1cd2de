"""Priorities over shards: chances, weights and updates are those of one table with all of it."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

from collections.abc import Callable, Iterator

import numpy as np

from shmtable import PrioritizedSampleStrategy, PriorityError, SpecError
from shmtable.integrations.ray import DistributedMemoryTable
from tests.integrations.ray.conftest import shards_of
from tests.strategies.chance import LEAST_P, p_value
from tests.tables import small_sequence

ALPHA, BETA, EPSILON = 0.7, 0.5, 1e-6
LENGTHS = [[3, 7], [12] * 3, [1, 1, 20]]
Priorities = dict[int, np.ndarray]


@pytest.fixture(scope="module")
def shared(make_distributed: Callable[..., DistributedMemoryTable]) -> DistributedMemoryTable:
    return make_distributed("weighed", sampler=PrioritizedSampleStrategy(alpha=ALPHA, beta=BETA))


@pytest.fixture
def table(shared: DistributedMemoryTable) -> Iterator[DistributedMemoryTable]:
    shared.clear()
    yield shared
    assert shared.check() == []


def filled(table: DistributedMemoryTable) -> Priorities:
    """Sequences whose priorities are far higher in some shards than in others."""
    random, found = np.random.default_rng(1), {}
    for number, (shard, several) in enumerate(zip(shards_of(table), LENGTHS, strict=True)):
        with shard:
            for place, length in enumerate(several):
                identity = 100 * number + place
                found[identity] = (random.random(length) + 0.2) * 4.0**number
                sequence = small_sequence(identity, length)
                shard.add_sequence(identity, sequence, priority=found[identity])
    return found


def weights(priorities: Priorities, steps: int) -> dict[tuple[int, int], float]:
    """Every window's, as one table has them: by its first transition."""
    return {
        (identity, offset): float((several[offset] + EPSILON) ** ALPHA)
        for identity, several in priorities.items()
        for offset in range(len(several) - steps + 1)
    }


def drawn(table: DistributedMemoryTable, steps: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for _ in range(20):
        points = table.sample(1000, steps).points
        found += zip(points.identities.tolist(), points.offsets.tolist(), strict=True)
    return found


@pytest.mark.parametrize("steps", [1, 3])
def test_windows_are_drawn_by_priority_over_all_shards(
    table: DistributedMemoryTable, steps: int
) -> None:
    priorities = filled(table)
    table.reseed(5)
    assert p_value(drawn(table, steps), weights(priorities, steps)) > LEAST_P


@pytest.mark.parametrize("steps", [1, 3])
def test_weights_are_those_of_the_whole_table(table: DistributedMemoryTable, steps: int) -> None:
    chances = weights(filled(table), steps)
    for count in (1, 4, 500):
        sample = table.sample(count, steps)
        windows = zip(
            sample.points.identities.tolist(), sample.points.offsets.tolist(), strict=True
        )
        mine = np.array([chances[window] for window in windows])
        assert sample.weights is not None
        assert sample.weights.numpy() == pytest.approx((mine.min() / mine) ** BETA, rel=1e-5)


def test_updates_go_back_to_their_shards(table: DistributedMemoryTable) -> None:
    priorities = filled(table)
    table.reseed(6)
    random = np.random.default_rng(9)
    for _ in range(30):
        points = table.sample(200, 1).points
        new = random.random(200) * 3 + 0.3
        # The last one of a window that was drawn twice counts, as in one table.
        for identity, offset, value in zip(points.identities, points.offsets, new, strict=True):
            priorities[int(identity)][int(offset)] = value
        assert table.update_priorities(points, new) == 200
    assert p_value(drawn(table, 1), weights(priorities, 1)) > LEAST_P


def test_stale_updates_are_passed_over(table: DistributedMemoryTable) -> None:
    filled(table)
    points = table.sample(300, 1).points
    table.remove(102)
    stale = int((points.identities == 102).sum())
    assert stale > 0
    assert table.update_priorities(points, np.ones(300)) == 300 - stale
    table.clear()
    assert table.update_priorities(points, np.ones(300)) == 0


def test_new_sequences_get_the_highest_priority_that_any_shard_has_seen(
    table: DistributedMemoryTable,
) -> None:
    filled(table)
    points = table.sample(400, 1).points
    assert len(points.tables) == 3
    values = np.ones(400)
    values[0] = 1e6
    table.update_priorities(points, values)
    for shard in shards_of(table):
        with shard:
            assert shard.sampler.highest == 1e6


def test_settings_of_all_samplers_at_once(table: DistributedMemoryTable) -> None:
    filled(table)
    table.set_sampler(beta=0.0)
    try:
        sample = table.sample(50, 1)
        assert sample.weights is not None
        assert sample.weights.tolist() == [1.0] * 50
        with pytest.raises(SpecError, match="beta is 2"):
            table.set_sampler(beta=2.0)
    finally:
        table.set_sampler(beta=BETA)


def test_bad_priorities_change_nothing(table: DistributedMemoryTable) -> None:
    priorities = filled(table)
    points = table.sample(4, 1).points
    for wrong in ([1.0, 1.0, 1.0, -1.0], [1.0, np.nan, 1.0, 1.0], [np.inf] * 4):
        with pytest.raises(PriorityError, match="give numbers from 0"):
            table.update_priorities(points, wrong)
    with pytest.raises(PriorityError, match="3,.* for 4 windows"):
        table.update_priorities(points, np.ones(3))
    with pytest.raises(SpecError, match=r"give the \.points of a sample"):
        table.update_priorities(None, np.ones(4))
    table.reseed(7)
    assert p_value(drawn(table, 1), weights(priorities, 1)) > LEAST_P
