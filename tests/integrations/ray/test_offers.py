"""What a table offers, against counting all its windows one by one."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

from collections.abc import Callable

import numpy as np

from shmtable import (
    ArrayMemoryTable,
    CoverageSampleStrategy,
    EndAlignedSampleStrategy,
    FifoSampleStrategy,
    MixtureSampleStrategy,
    PrioritizedSampleStrategy,
    SampleStrategy,
    SpecError,
    UniformSampleStrategy,
)
from shmtable.index import fields as f
from shmtable.integrations.ray.offers import Offers, make_absolute, refuse_other
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]
SAMPLERS: list[Callable[[], SampleStrategy]] = [
    UniformSampleStrategy,
    PrioritizedSampleStrategy,
    lambda: PrioritizedSampleStrategy(normalize="table"),
    lambda: PrioritizedSampleStrategy(per="sequence"),
    CoverageSampleStrategy,
    lambda: EndAlignedSampleStrategy(PrioritizedSampleStrategy(), 0.5),
]
LENGTHS = [1, 2, 3, 7, 20, 4]


def filled(make_table: MakeTable, sampler: SampleStrategy, pad: str | None) -> ArrayMemoryTable:
    table = make_table(sampler=sampler, pad=pad, seed=3)
    random = np.random.default_rng(4)
    for identity, length in enumerate(LENGTHS):
        given = {}
        if isinstance(sampler, PrioritizedSampleStrategy):
            given["priority"] = random.random(length) + 0.1
        table.add_sequence(identity, small_sequence(identity, length), **given)
    return table


def weights(table: ArrayMemoryTable, steps: int) -> dict[tuple[int, int], float]:
    """Every window on offer, (slot, offset), and its weight."""
    core = table._core
    inner = getattr(table.sampler, "members", [table.sampler])[0]
    slots = core.view.live_slots()
    found = {}
    for slot, count in zip(slots.tolist(), core.view.window_counts(slots, steps), strict=True):
        start = int(core.arrays.slots[slot, f.START])
        for offset in range(count):
            if isinstance(inner, UniformSampleStrategy):
                weight = 1.0
            elif inner._per_slot:
                weight = float(inner._tree.leaves[slot]) / count
            else:
                weight = float(inner._tree.leaves[start + offset])
            found[slot, offset] = weight
    return found


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 20])
@pytest.mark.parametrize("pad", [None, "zero"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_offer_is_the_sum_of_the_weights_of_all_windows(
    make_table: MakeTable, sampler: Callable[[], SampleStrategy], pad: str | None, steps: int
) -> None:
    table = filled(make_table, sampler(), pad)
    offers = Offers(table._core, table.sampler)
    expected = sum(weights(table, steps).values())
    assert offers.now(steps).weight == pytest.approx(expected, rel=1e-9)
    assert offers.now(steps).transitions == sum(LENGTHS)
    assert offers.now(steps).table == table._core.arena.id


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_is_offered_where_nothing_is_long_enough(
    make_table: MakeTable, sampler: Callable[[], SampleStrategy]
) -> None:
    table = filled(make_table, sampler(), None)
    offers = Offers(table._core, table.sampler)
    assert offers.now(21).weight == 0.0
    table.clear()
    assert offers.now(1).weight == 0.0
    table.add_sequence(9, small_sequence(9, 5))
    assert offers.now(1).weight > 0.0


def test_the_count_follows_the_table(make_table: MakeTable) -> None:
    table = filled(make_table, UniformSampleStrategy(), None)
    offers = Offers(table._core, table.sampler)
    assert offers.now(2).weight == sum(max(length - 1, 0) for length in LENGTHS)
    offers.forget()
    table.add_sequence(100, small_sequence(100, 50))
    assert offers.now(2).weight == sum(max(length - 1, 0) for length in [*LENGTHS, 50])


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("sampler", SAMPLERS[1:5])
def test_chances_are_the_windows_own_weights(
    make_table: MakeTable, sampler: Callable[[], SampleStrategy], steps: int
) -> None:
    table = filled(make_table, sampler(), None)
    make_absolute(table.sampler)
    expected = weights(table, steps)  # before: being sampled may change them
    points = table.sample(64, steps).points
    assert points is not None and points.chances is not None
    windows = zip(points.slots.tolist(), points.offsets.tolist(), strict=True)
    assert points.chances == pytest.approx([expected[window] for window in windows], rel=1e-9)


def test_samplers_that_cannot_be_split_are_refused() -> None:
    for sampler in (
        FifoSampleStrategy(),
        MixtureSampleStrategy([(0.5, UniformSampleStrategy()), (0.5, FifoSampleStrategy())]),
    ):
        with pytest.raises(SpecError, match=f"sampler is a {type(sampler).__name__}; shards"):
            refuse_other(sampler)
