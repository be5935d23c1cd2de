"""What every sampler and every ejector promises, whatever has happened to the table before."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    EjectionStrategy,
    EndAlignedSampleStrategy,
    FifoSampleStrategy,
    LifoSampleStrategy,
    MixtureSampleStrategy,
    PrioritizedSampleStrategy,
    SampleStrategy,
    UniformEjectionStrategy,
    UniformSampleStrategy,
    WithoutReplacementSampleStrategy,
)
from shmtable.index import fields as f
from shmtable.shm.header import DIRTY
from shmtable.strategies import STRATEGIES, CompositeSampleStrategy, Strategy
from tests.strategies.derived import wrong_with_derived
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]

# Beside each class as it is made by default.
VARIANTS: list[Strategy] = [
    FifoSampleStrategy(per_episode=False, random_offset=False),
    FifoSampleStrategy(per_episode=False, random_offset=True),
    LifoSampleStrategy(per_episode=False, random_offset=False),
    PrioritizedSampleStrategy(per="sequence"),
    PrioritizedSampleStrategy(normalize="table"),
    EndAlignedSampleStrategy(UniformSampleStrategy(), 0.3),
    MixtureSampleStrategy([(0.8, PrioritizedSampleStrategy()), (0.2, LifoSampleStrategy())]),
]
SIMPLE = [cls for cls in STRATEGIES.values() if not issubclass(cls, CompositeSampleStrategy)]
EVERY = [cls() for cls in SIMPLE] + VARIANTS
SAMPLERS = [strategy for strategy in EVERY if isinstance(strategy, SampleStrategy)]
EJECTORS = [strategy for strategy in EVERY if isinstance(strategy, EjectionStrategy)]


def called(strategy: Strategy) -> str:
    return f"{type(strategy).__name__}{tuple(strategy.config().values()) or ''}"


def again(strategy: Strategy) -> Strategy:
    """A new one like it: an instance belongs to one table."""
    return type(strategy).from_config(strategy.config(), STRATEGIES)


def add(table: ArrayMemoryTable, identities: range, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 40, len(identities))
    for identity, length in zip(identities, lengths.tolist(), strict=True):
        table.add_sequence(identity, small_sequence(identity, length))


def fresh(table: ArrayMemoryTable) -> None:
    add(table, range(20), 0)


def churned(table: ArrayMemoryTable) -> None:
    add(table, range(100), 1)
    for identity in table.identities()[::3].tolist():
        table.remove(identity)
    add(table, range(200, 210), 2)


def cleared(table: ArrayMemoryTable) -> None:
    churned(table)
    table.clear()
    add(table, range(300, 312), 3)


def recovered(table: ArrayMemoryTable) -> None:
    """A process died after its first store, and left rubbish in what is derived."""
    churned(table)
    core = table._core
    core.arrays.links[: core.arena.words[f.SLOT_HIGH]] = 3
    core.arena.words[f.LIVE_COUNT] = 1
    core.arena.words[DIRTY] = 1
    assert table.stats().recoveries == 1


def resized(table: ArrayMemoryTable) -> None:
    churned(table)
    table.resize(900)
    add(table, range(400, 430), 4)


def one_long(table: ArrayMemoryTable) -> None:
    table.add_sequence(-1, small_sequence(0, 300))


HISTORIES = [fresh, churned, cleared, recovered, resized, one_long]
histories = pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
samplers = pytest.mark.parametrize("sampler", SAMPLERS, ids=called)
ejectors = pytest.mark.parametrize("ejector", EJECTORS, ids=called)


def prepared(
    make_table: MakeTable,
    history: Callable[[ArrayMemoryTable], None],
    *,
    sampler: Strategy | None = None,
    ejector: Strategy | None = None,
    pad: str | None = None,
) -> ArrayMemoryTable:
    options = {"sampler": sampler, "ejector": ejector or UniformEjectionStrategy()}
    given = {name: again(strategy) for name, strategy in options.items() if strategy is not None}
    table = make_table(maxlen=600, seed=1, pad=pad, **given)
    history(table)
    return table


@samplers
@histories
def test_a_sampler_with_a_pass_order_takes_each_sequence_once_in_it(
    make_table: MakeTable, history: Callable[[ArrayMemoryTable], None], sampler: SampleStrategy
) -> None:
    core = prepared(make_table, history, sampler=sampler)._core
    order = core.sampler.pass_order
    assert order in (None, "oldest", "newest")
    for steps in (1, 7) if order else ():
        slots = core.view.live_slots()
        long = slots[core.arrays.slots[slots, f.LENGTH] >= steps]
        orders = np.sort(core.arrays.slots[long, f.ORDER])[:: 1 if order == "oldest" else -1]
        for count in {1, len(long) // 2 or 1, len(long)}:
            points = core.guard.run(core.sampler.sample, count, steps, np.random.default_rng(1))
            found = core.arrays.slots[points.slots, f.ORDER]
            assert found.tolist() == orders[:count].tolist()


@samplers
@histories
@pytest.mark.parametrize("pad", [None, "zero"])
def test_exactly_so_many_windows_all_of_them_on_offer(
    make_table: MakeTable,
    sampler: SampleStrategy,
    history: Callable[[ArrayMemoryTable], None],
    pad: str | None,
) -> None:
    table = prepared(make_table, history, sampler=sampler, pad=pad)
    core, random = table._core, np.random.default_rng(0)
    slots = core.arrays.slots
    longest = int(slots[core.view.live_slots(), f.LENGTH].max())
    untouched = core.arrays.slots[:200].copy(), core.arrays.links[:200].copy()
    for count, steps in [(1, 1), (3, 7), (64, longest), (500, 2), (5, longest - 1)]:
        points = core.guard.run(core.sampler.sample, count, steps, random)
        assert len(points.slots) == len(points.offsets) == len(points.generations) == count
        assert points.slots.dtype == points.offsets.dtype == np.int64
        records = slots[points.slots]
        assert (records[:, f.STATE] == f.LIVE).all()
        assert (records[:, f.GENERATION] == points.generations).all()
        last = records[:, f.LENGTH] - steps
        assert (points.offsets >= 0).all()
        assert (points.offsets <= (last if pad is None else np.maximum(last, 0))).all()
    assert np.array_equal(core.arrays.slots[:200], untouched[0])
    assert np.array_equal(core.arrays.links[:200], untouched[1])


@samplers
@histories
def test_samples_hold_together(
    make_table: MakeTable, sampler: SampleStrategy, history: Callable[[ArrayMemoryTable], None]
) -> None:
    table = prepared(make_table, history, sampler=sampler)
    present = {0} if history is one_long else set(table.identities().tolist())
    for count, steps in [(1, 1), (40, 3), (30, 12)]:
        sample = table.sample(count, steps)
        assert torn_windows(sample, steps) == []
        assert set(sample["obs"][:, 0].int().tolist()) <= present
        assert len(sample["obs"]) == count * steps


@samplers
@histories
def test_no_points_at_all_when_nothing_is_long_enough(
    make_table: MakeTable, sampler: SampleStrategy, history: Callable[[ArrayMemoryTable], None]
) -> None:
    table = prepared(make_table, history, sampler=sampler)
    core = table._core
    points = core.guard.run(core.sampler.sample, 10, 301, np.random.default_rng(0))
    assert len(points.slots) == len(points.offsets) == len(points.generations) == 0


@samplers
def test_the_same_generator_gives_the_same_windows(
    make_table: MakeTable, sampler: SampleStrategy
) -> None:
    core = prepared(make_table, churned, sampler=sampler)._core
    first, second = (
        core.guard.run(core.sampler.sample, 50, 3, np.random.default_rng(9)) for _ in range(2)
    )
    if isinstance(sampler, WithoutReplacementSampleStrategy):
        assert not set(first.starts.tolist()) & set(second.starts.tolist())
        return
    assert np.array_equal(first.slots, second.slots)
    assert np.array_equal(first.offsets, second.offsets)


def used(table: ArrayMemoryTable, seed: int) -> None:
    """Samples of several lengths and, where there are any, new priorities; more than once."""
    random = np.random.default_rng(seed)
    for count, steps in [(1, 1), (30, 1), (20, 4), (60, 2)]:
        points = table.sample(count, steps).points
        assert points is not None
        if table._core.prioritized:
            if len(table.identities()) > 5:
                table.remove(int(table.identities()[0]))
            table.update_priorities(points, random.exponential(size=(count, steps)))
            table.update_priorities(points, random.exponential(size=count))


@pytest.mark.parametrize("strategy", EVERY, ids=called)
@histories
def test_what_is_derived_is_what_rebuild_makes(
    make_table: MakeTable,
    strategy: Strategy,
    history: Callable[[ArrayMemoryTable], None],
    tmp_path: Path,
) -> None:
    role = "sampler" if isinstance(strategy, SampleStrategy) else "ejector"
    table = prepared(make_table, history, **{role: strategy}, pad="edge")
    assert wrong_with_derived(table) == []
    used(table, 1)
    assert wrong_with_derived(table) == []
    table.store(tmp_path / "t")
    add(table, range(500, 540), 5)  # ejects
    used(table, 2)
    for identity in table.identities()[::2].tolist():
        table.remove(identity)
    assert wrong_with_derived(table) == []
    table.resize(5000)
    add(table, range(600, 650), 6)
    assert wrong_with_derived(table) == []
    table.restore(tmp_path / "t")
    assert wrong_with_derived(table) == []
    used(table, 3)
    assert wrong_with_derived(table) == []
    table.clear()
    assert wrong_with_derived(table) == []


@ejectors
@histories
def test_ejected_are_distinct_live_slots_that_free_enough(
    make_table: MakeTable, ejector: EjectionStrategy, history: Callable[[ArrayMemoryTable], None]
) -> None:
    table = prepared(make_table, history, ejector=ejector)
    core, random = table._core, np.random.default_rng(0)
    slots = core.arrays.slots
    total = table.size()
    for transitions in [1, 2, total // 3, total // 2, total - 1, total]:
        # An array, or a list of plain numbers.
        chosen = np.asarray(core.guard.run(core.ejector.sample, transitions, random))
        assert chosen.dtype == np.int64 and chosen.ndim == 1
        assert len(set(chosen.tolist())) == len(chosen)
        assert (slots[chosen, f.STATE] == f.LIVE).all()
        assert slots[chosen, f.LENGTH].sum() >= transitions
    assert set(chosen.tolist()) == set(core.view.live_slots().tolist())
    assert table.check() == []


@ejectors
def test_a_table_at_its_limits_goes_on(make_table: MakeTable, ejector: EjectionStrategy) -> None:
    table = make_table(maxlen=60, max_sequences=5, ejector=again(ejector), seed=1)
    random = np.random.default_rng(4)
    for identity in range(150):
        length = int(random.choice([1, 2, 10, 30, 60]))
        table.add_sequence(identity, small_sequence(identity, length))
        assert table.identities()[-1] == identity
        assert table.size() <= 60
        assert len(table.identities()) <= 5
        assert table.check() == []


@pytest.mark.parametrize("strategy", EVERY, ids=called)
def test_configurations_make_equal_strategies(strategy: Strategy) -> None:
    config = json.loads(json.dumps(strategy.config()))
    assert config == strategy.config()
    made = type(strategy).from_config(config, STRATEGIES)
    assert made.config() == config
    assert made.states() == strategy.states()


@pytest.mark.parametrize("strategy", EVERY, ids=called)
def test_a_table_that_is_passed_on_has_the_same_strategies(
    make_table: MakeTable, strategy: Strategy
) -> None:
    role = "sampler" if isinstance(strategy, SampleStrategy) else "ejector"
    table = make_table(**{role: again(strategy)})
    with pickle.loads(pickle.dumps(table)) as other:
        arrived = getattr(other._core, role)
        assert type(arrived) is type(strategy)
        assert arrived.config() == strategy.config()


@pytest.mark.parametrize("strategy", EVERY, ids=called)
def test_arrays_asked_for_have_names_and_known_types(strategy: Strategy) -> None:
    states = strategy.states()
    assert len({state.name for state in states}) == len(states)
    for state in states:
        assert state.per in ("slot", "row", "table")
        assert np.dtype(state.dtype).itemsize in (1, 2, 4, 8)
