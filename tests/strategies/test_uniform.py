"""Uniform sampling and ejection: every window, or every sequence, equally likely."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    Column,
    SampleStrategy,
    UniformEjectionStrategy,
    UniformSampleStrategy,
)
from shmtable.types import SamplePoints
from tests.strategies.chance import LEAST_P, draw, length_of, p_value, windows

MakeTable = Callable[..., ArrayMemoryTable]

WAYS = ("_by_row", "_by_sequence", "_by_count")


def narrow_table(make_table: MakeTable, **options: Any) -> ArrayMemoryTable:
    """One small column: these tests draw many windows."""
    defaults = {"columns": [Column("actions", (), "int32")], "maxlen": 600, "seed": 11}
    return make_table(**{**defaults, "ejector": UniformEjectionStrategy(), **options})


def fill(table: ArrayMemoryTable, lengths: list[int], first: int = 0) -> None:
    table.add_sequences(
        (first + nth, {"actions": np.arange(length, dtype=np.int32)})
        for nth, length in enumerate(lengths)
    )


def churned(make_table: MakeTable, seed: int, **options: Any) -> ArrayMemoryTable:
    """Mixed lengths, three times as many as fit, with removals: gaps and reused slots."""
    random = np.random.default_rng(seed)
    table = narrow_table(make_table, **options)
    fill(table, random.integers(1, 30, 120).tolist())
    for identity in random.permutation(table.identities())[:8].tolist():
        table.remove(identity)
    fill(table, random.integers(1, 12, 20).tolist(), first=1000)
    assert table.stats().sequences_removed > 60
    return table


def kept_by(sampler: object, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts how many windows come from each of the sampler's three ways of drawing."""
    kept = dict.fromkeys(WAYS, 0)

    def spy(name: str, way: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            drawn = way(*args)
            kept[name] += len(drawn[0])
            return drawn

        return called

    for name in WAYS:
        monkeypatch.setattr(sampler, name, spy(name, getattr(sampler, name)))
    return kept


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_window_is_equally_likely_after_churn(
    make_table: MakeTable, steps: int, seed: int
) -> None:
    table = churned(make_table, seed)
    offered = windows(table, steps)
    assert len({length_of(table, identity) for identity, _ in offered}) > 3
    assert p_value(draw(table, 40 * len(offered), steps), offered) > LEAST_P


@pytest.mark.parametrize("steps", [1, 5, 29, 100])
@pytest.mark.parametrize("pad", ["zero", "edge"])
def test_every_window_is_equally_likely_where_short_sequences_are_padded(
    make_table: MakeTable, steps: int, pad: str
) -> None:
    table = churned(make_table, 3, pad=pad)
    offered = windows(table, steps, padded=True)
    assert p_value(draw(table, 40 * len(offered), steps), offered) > LEAST_P


def test_many_small_samples_are_as_uniform_as_a_large_one(make_table: MakeTable) -> None:
    table = churned(make_table, 4)
    offered = windows(table, 6)
    drawn = [window for _ in range(1500) for window in draw(table, 8, 6)]
    assert p_value(drawn, offered) > LEAST_P


def mixed(random: np.random.Generator, lengths: list[int], copies: int) -> list[int]:
    """``copies`` of each length, shuffled."""
    return [int(length) for length in random.permutation(lengths * copies)]


# What forces each way: many rows qualify; one row in thirty does, but every second sequence;
# one sequence in fifty does.
FORCED = {
    "_by_row": ([10, 12, 45], 10, 8),
    "_by_sequence": ([29, 30, 30, 30, 31], 5, 30),
    "_by_count": ([40] + 24 * [5] + 25 * [7], 4, 39),
}


@pytest.mark.parametrize("pad", [None, "edge"])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_drawing_is_uniform(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, way: str, pad: str | None
) -> None:
    lengths, copies, steps = FORCED[way]
    table = narrow_table(make_table, maxlen=4000, pad=pad, seed=5)
    fill(table, mixed(np.random.default_rng(2), lengths, copies))
    for identity in table.identities()[3::10].tolist():
        table.remove(identity)
    kept = kept_by(table._core.sampler, monkeypatch)
    offered = windows(table, steps, padded=pad is not None)
    drawn = draw(table, 12_000, steps)
    assert p_value(drawn, offered) > LEAST_P
    if pad is None:
        assert kept[way] > 0.6 * len(drawn), kept


def test_a_few_windows_are_found_among_very_many_short_sequences(make_table: MakeTable) -> None:
    table = narrow_table(make_table, maxlen=20_000)
    fill(table, 3000 * [1] + [50] + 3000 * [1] + [51])
    drawn = draw(table, 200, 50)
    assert p_value(drawn, [(3000, 0), (6001, 0), (6001, 1)]) > LEAST_P


def test_nothing_long_enough_gives_no_points(make_table: MakeTable) -> None:
    table = narrow_table(make_table)
    fill(table, [3, 4, 5])
    core = table._core
    points = core.guard.run(core.sampler.sample, 10, 6, np.random.default_rng(0))
    assert len(points) == 0


class SequenceFirst(SampleStrategy):
    """Wrong: every sequence equally likely, whatever windows it offers."""

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        slots = self.view.live_slots()
        slots = slots[self.view.window_counts(slots, sequence_length) > 0]
        slots = random.choice(slots, count)
        return self.view.points(
            slots, random.integers(0, self.view.window_counts(slots, sequence_length))
        )


class NeverTheLast(UniformSampleStrategy):
    """Wrong by one: a sequence's last window is drawn half as often as the others."""

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        points = super().sample(2 * count, sequence_length, random)
        last = points.offsets == self.view.window_counts(points.slots, sequence_length) - 1
        kept = np.flatnonzero(~last | (random.random(2 * count) < 0.5))[:count]
        return self.view.points(points.slots[kept], points.offsets[kept])


@pytest.mark.parametrize("sampler", [SequenceFirst, NeverTheLast])
def test_the_test_sees_what_is_not_uniform(
    make_table: MakeTable, sampler: type[SampleStrategy]
) -> None:
    table = churned(make_table, 0, sampler=sampler())
    offered = windows(table, 7)
    assert p_value(draw(table, 40 * len(offered), 7), offered) < LEAST_P


def eject(table: ArrayMemoryTable, transitions: int, times: int) -> list[tuple[int, ...]]:
    """Identities that would go, drawn again and again."""
    core, random = table._core, np.random.default_rng(7)
    slots = core.arrays.slots
    return [
        tuple(slots[core.ejector.sample(transitions, random), 2].tolist()) for _ in range(times)
    ]


def test_every_sequence_is_equally_likely_to_go_whatever_its_length(make_table: MakeTable) -> None:
    table = churned(make_table, 5)
    drawn = [first for first, *_ in eject(table, 1, 3000)]
    assert p_value(drawn, table.identities().tolist()) > LEAST_P


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_order_of_going_is_equally_likely(make_table: MakeTable, count: int) -> None:
    # Up to all but one: beyond half of them another way of drawing takes over.
    table = narrow_table(make_table)
    fill(table, [10, 10, 10, 10, 10])
    drawn = eject(table, 10 * count, 3000)
    assert p_value(drawn, itertools.permutations(range(5), count)) > LEAST_P


def test_no_more_go_than_needed(make_table: MakeTable) -> None:
    table = churned(make_table, 6)
    lengths = {identity: length_of(table, identity) for identity in table.identities().tolist()}
    for transitions in (1, 30, 200, table.size()):
        for gone in eject(table, transitions, 20):
            assert len(set(gone)) == len(gone)
            freed = [lengths[identity] for identity in gone]
            assert sum(freed) >= transitions > sum(freed[:-1])
