"""By coverage: chances follow the times sampled, whoever samples."""

from __future__ import annotations

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    CoverageEjectionStrategy,
    CoverageSampleStrategy,
    SpecError,
    WeightedSampleStrategy,
)
from shmtable.index import fields as f
from shmtable.types import SamplePoints
from tests.multiprocess.recipe import Crew
from tests.strategies.chance import LEAST_P, p_value
from tests.strategies.derived import wrong_with_derived
from tests.strategies.prioritized import MakeTable, Window, add, agreement, narrow

LENGTHS = [3, 8, 4, 12, 5, 9]


def times_sampled(table: ArrayMemoryTable) -> dict[int, int]:
    """By identity."""
    core = table._core
    slots = core.view.live_slots()
    identities = core.arrays.slots[slots, f.IDENTITY].tolist()
    return dict(zip(identities, core.arrays.times_sampled[slots].tolist(), strict=True))


def chosen(table: ArrayMemoryTable, count: int, steps: int, rounds: int) -> list[Window]:
    """Windows that the sampler would draw now; nothing is handed out, so no chance changes."""
    core, random = table._core, np.random.default_rng(0)
    assert isinstance(core.sampler, WeightedSampleStrategy)
    parts: list[SamplePoints] = [core.sampler.sample(count, steps, random) for _ in range(rounds)]
    points = SamplePoints.joined(parts)
    return list(zip(points.identities.tolist(), points.offsets.tolist(), strict=True))


def sample_some(table: ArrayMemoryTable) -> None:
    for count, steps in [(7, 1), (3, 2), (20, 4), (5, 1)]:
        table.sample(count, steps)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_chances_after_sampling_by_several_processes(make_table: MakeTable, alpha: float) -> None:
    table = narrow(make_table, sampler=CoverageSampleStrategy(alpha=alpha))
    for identity, length in enumerate(LENGTHS):
        add(table, identity, length)
    with Crew("fork") as crew:
        for _ in range(3):
            crew.add(sample_some, table)
        crew.go()
        crew.results()
    sample_some(table)
    add(table, 9, 6)  # one that has not been sampled at all
    times = times_sampled(table)
    assert sum(times.values()) == 4 * 35 and times[9] == 0
    lengths = {**dict(enumerate(LENGTHS)), 9: 6}
    weights = {
        (identity, offset): (times[identity] + 1.0) ** -alpha / (lengths[identity] - 2)
        for identity in times
        for offset in range(lengths[identity] - 2)
    }
    assert agreement(chosen(table, 100, 3, 200), weights) > LEAST_P
    assert wrong_with_derived(table) == []


def test_it_evens_out(make_table: MakeTable) -> None:
    table = narrow(make_table, sampler=CoverageSampleStrategy(alpha=8))
    for identity, length in enumerate(LENGTHS):
        add(table, identity, length)
    for _ in range(300):
        table.sample(1, 1)
    assert max(times_sampled(table).values()) - min(times_sampled(table).values()) < 15


@pytest.mark.parametrize("victims", [1, 2])
def test_what_has_been_sampled_most_goes_by_chance(make_table: MakeTable, victims: int) -> None:
    table = narrow(make_table, ejector=CoverageEjectionStrategy(alpha=0.7))
    for identity in range(5):
        add(table, identity, 10)
    for count in (1, 30, 8):
        table.sample(count, 1)
    times = times_sampled(table)
    core, random = table._core, np.random.default_rng(1)
    gone = [
        tuple(core.arrays.slots[core.ejector.sample(10 * victims, random), f.IDENTITY].tolist())
        for _ in range(6000)
    ]
    weight = {identity: (count + 1.0) ** 0.7 for identity, count in times.items()}
    total = sum(weight.values())
    first = {(identity,): w for identity, w in weight.items()}
    pairs = {
        (a, b): weight[a] * weight[b] / (total - weight[a])
        for a in weight
        for b in weight
        if a != b
    }
    assert p_value(gone, first if victims == 1 else pairs) > LEAST_P
    assert wrong_with_derived(table) == []


def test_one_that_outweighs_all_others_is_not_drawn_for_ever(make_table: MakeTable) -> None:
    table = narrow(make_table, ejector=CoverageEjectionStrategy(alpha=8), maxlen=60)
    for identity in range(30):
        add(table, identity, 2)
    core = table._core
    core.arrays.times_sampled[core.view.live_slots()[7]] = 10**6
    core.guard.run(core.ejector.rebuild)
    assert len(core.guard.run(core.ejector.sample, 20, np.random.default_rng(0))) == 10
    add(table, 99, 40)
    assert len(table.identities()) == 11


@pytest.mark.parametrize("cls", [CoverageSampleStrategy, CoverageEjectionStrategy])
@pytest.mark.parametrize("alpha", [-0.1, 8.1, float("nan"), "2"])
def test_settings_that_cannot_be(cls: type, alpha: object) -> None:
    with pytest.raises(SpecError, match="alpha is .*give a number from 0 to 8"):
        cls(alpha=alpha)
