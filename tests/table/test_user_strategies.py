"""Strategies written by users: their arrays, what they are told, and what their errors do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    EjectionStrategy,
    FifoEjectionStrategy,
    LockReentryError,
    PrioritizedSampleStrategy,
    SampleStrategy,
    SpecError,
    StateSpec,
    StrategyError,
    UniformSampleStrategy,
)
from shmtable.index import fields as f
from shmtable.types import Int64Array, SamplePoints
from tests.table.snapshots import content, everything
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]


class LatestStart(SampleStrategy):
    """Draws the first window of the sequences, those that were added last first.

    Keeps the number of each sequence in an array per slot, and a mark on its first row.
    """

    def __init__(self, stride: int = 1) -> None:
        self.stride = stride
        self.sampled = 0

    def config(self) -> dict[str, Any]:
        return {"stride": self.stride}

    def states(self) -> tuple[StateSpec, ...]:
        return StateSpec("number", "slot", "int64"), StateSpec("first", "row", "uint8")

    def track(self, slot: int, start: int, length: int) -> None:
        numbers = self.arrays["number"]
        numbers[slot] = int(numbers[self.view.live_slots()].max(initial=0)) + self.stride
        self.arrays["first"][start : start + length] = 0
        self.arrays["first"][start] = 1

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        slots = self.view.live_slots()
        slots = slots[self.view.window_counts(slots, sequence_length) > 0]
        slots = slots[np.argsort(-self.arrays["number"][slots])][:count]
        slots = np.resize(slots, count) if len(slots) else slots
        return self.view.points(slots, np.zeros_like(slots))

    def on_sample(self, points: SamplePoints, sequence_length: int, advantages: Any = None) -> None:
        assert self.arrays["first"][self.view.slots[points.slots, f.START]].all()
        self.sampled += len(points)


class Fussy(FifoEjectionStrategy):
    """Oldest first, and fails where it is told to."""

    fails_in = ""
    calls: list[str]

    def __init__(self) -> None:
        self.calls = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fails_in == name:
            raise ZeroDivisionError(name)

    def sample(self, count: int, random: np.random.Generator) -> Int64Array:
        self._call("sample")
        return super().sample(count, random)

    def track(self, slot: int, start: int, length: int) -> None:
        self._call("track")

    def forget(self, slot: int, start: int, length: int) -> None:
        self._call("forget")

    def rebuild(self) -> None:
        self.calls.append("rebuild")


def add(table: ArrayMemoryTable, *identities: int, length: int = 5) -> None:
    for identity in identities:
        table.add_sequence(identity, small_sequence(identity, length))


def test_arrays_are_shared_by_all_who_have_the_table(make_table: MakeTable) -> None:
    table = make_table(sampler=LatestStart(stride=10))
    add(table, 1, 2, 3)
    with pickle.loads(pickle.dumps(table)) as other:
        add(other, 4)
        for each in (table, other):
            points = each.sample(3, 5).points
            assert points is not None
            assert points.identities.tolist() == [4, 3, 2]
            numbers = each._core.sampler.arrays["number"]
            assert numbers[points.slots].tolist() == [40, 30, 20]
            assert each._core.sampler.sampled == 3  # not shared: an attribute is the process's own


def test_arrays_follow_the_table_through_churn(make_table: MakeTable) -> None:
    table = make_table(sampler=LatestStart(), maxlen=60)
    for identity in range(100):
        add(table, identity, length=1 + identity * 7 % 20)
        if identity % 9 == 8:
            table.remove(int(table.identities()[0]))
        sample = table.sample(4, 1)
        assert torn_windows(sample, 1) == []
        assert sample.points is not None
        expected = table.identities()[::-1][:4].tolist()
        assert sample.points.identities.tolist() == (expected * 4)[:4]


def test_a_table_of_unknown_strategies_cannot_be_attached_by_name(
    make_table: MakeTable, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    make_table(name=name, sampler=LatestStart())
    with pytest.raises(SpecError) as caught:
        ArrayMemoryTable.attach(name)
    assert str(caught.value) == (
        "strategy 'LatestStart' is not a SampleStrategy this program knows; pass its class, "
        "attach(..., classes=[...]), or pass the table itself to the process"
    )


def test_a_table_of_ones_own_strategies_is_attached_with_their_classes(
    make_table: MakeTable, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    make_table(name=name, sampler=LatestStart(), ejector=Fussy())
    with ArrayMemoryTable.attach(name, classes=[LatestStart, Fussy]) as table:
        assert type(table.sampler) is LatestStart
        assert type(table.ejector) is Fussy


def test_a_strategy_that_belongs_to_no_table_says_so(make_table: MakeTable) -> None:
    sampler = PrioritizedSampleStrategy()
    make_table(sampler=sampler)
    for touch in (
        lambda: sampler.beta,
        lambda: setattr(sampler, "beta", 0.5),
        lambda: sampler.view,
    ):
        with pytest.raises(AttributeError, match="belongs to no table; use the table's own"):
            touch()
    with pytest.raises(AttributeError, match="has no attribute 'gamma'"):
        sampler.gamma  # noqa: B018


def fussy(make_table: MakeTable, **options: Any) -> tuple[ArrayMemoryTable, Fussy]:
    """A table with three sequences of 5, full at 15, and its ejector as it is used."""
    table = make_table(maxlen=15, ejector=Fussy(), **options)
    add(table, 1, 2, 3)
    ejector = table._core.ejector
    assert isinstance(ejector, Fussy)
    ejector.calls.clear()
    return table, ejector


def test_what_an_ejector_is_told(make_table: MakeTable) -> None:
    table, ejector = fussy(make_table)
    add(table, 4)
    assert ejector.calls == ["sample", "forget", "track"]
    ejector.calls.clear()
    table.remove(4)
    table.clear()
    assert ejector.calls == ["forget", "rebuild"]


class Dressed(UniformSampleStrategy):
    """Has its methods from elsewhere: some since it was made, some since it was bound."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.track = self._noting("track")  # type: ignore[method-assign]
        self.on_sample = lambda points, steps: self.told.append(("sample", len(points)))  # type: ignore[method-assign]
        self.weights = lambda points: torch.ones(len(points))  # type: ignore[method-assign]

    def bind(self, view: Any, arrays: Any) -> None:
        super().bind(view, arrays)
        self.forget = self._noting("forget")  # type: ignore[method-assign]

    def _noting(self, name: str) -> Callable[[int, int, int], None]:
        return lambda slot, start, length: self.told.append((name, length))


def test_methods_that_a_strategy_has_not_from_its_class_are_called(make_table: MakeTable) -> None:
    table = make_table(sampler=Dressed())
    add(table, 1)
    assert table.sample(3, 2).weights.tolist() == [1, 1, 1]
    table.remove(1)
    assert table.sampler.told == [("track", 5), ("sample", 3), ("forget", 5)]


def test_an_ejector_that_fails_to_choose_changes_nothing(make_table: MakeTable) -> None:
    table, ejector = fussy(make_table)
    before = everything(table)
    ejector.fails_in = "sample"
    with pytest.raises(ZeroDivisionError, match="sample"):
        add(table, 4)
    assert everything(table) == before
    ejector.fails_in = ""
    add(table, 4)
    assert table.identities().tolist() == [2, 3, 4]


def test_an_error_in_track_leaves_the_sequence_out(make_table: MakeTable) -> None:
    table, ejector = fussy(make_table)
    ejector.fails_in = "track"
    with pytest.raises(ZeroDivisionError, match="track"):
        add(table, 4)
    # The ejection that made room for it stays, as it does when a writer dies.
    assert table.identities().tolist() == [2, 3]
    assert table.check() == []
    assert table.stats().recoveries == 1
    assert table.stats().writing_transitions == 0
    ejector.fails_in = ""
    add(table, 4)
    assert table.identities().tolist() == [2, 3, 4]


def test_an_error_in_forget_is_repaired(make_table: MakeTable) -> None:
    table, ejector = fussy(make_table)
    ejector.fails_in = "forget"
    with pytest.raises(ZeroDivisionError, match="forget"):
        table.remove(2)
    assert table.identities().tolist() == [1, 3]
    assert table.check() == []
    assert "rebuild" in ejector.calls
    ejector.fails_in = ""
    add(table, 4, 5)
    assert table.identities().tolist() == [3, 4, 5]
    assert content(table)[5]["actions"] == list(range(5000, 5005))


class Queued(EjectionStrategy):
    """Everybody goes, by a list of its own."""

    def __init__(self) -> None:
        self.queue: list[int] = []

    def track(self, slot: int, start: int, length: int) -> None:
        self.queue.append(slot)

    def forget(self, slot: int, start: int, length: int) -> None:
        self.queue.remove(slot)

    def rebuild(self) -> None:
        self.queue = self.view.live_slots().tolist()

    def sample(self, count: int, random: np.random.Generator) -> list[int]:
        return self.queue


def test_an_ejector_may_return_its_own_list(make_table: MakeTable) -> None:
    table = make_table(maxlen=15, ejector=Queued())
    add(table, 1, 2, 3)
    add(table, 4, length=12)
    assert table.identities().tolist() == [4]
    assert table.check() == []


class Calling(FifoEjectionStrategy):
    """Calls the very table it belongs to, from under its lock."""

    table: ArrayMemoryTable
    call: Callable[[ArrayMemoryTable], object]

    def sample(self, count: int, random: np.random.Generator) -> Int64Array:
        type(self).call(self.table)
        return super().sample(count, random)


@pytest.mark.parametrize("lock", ["robust", "portable"])
@pytest.mark.parametrize("use", ["identities", "stats", "clear", "add"])
def test_a_strategy_that_calls_its_table_is_refused(
    make_table: MakeTable, lock: str, use: str
) -> None:
    table = make_table(maxlen=15, ejector=Calling(), lock=lock)
    add(table, 1, 2, 3)
    before = everything(table)
    table._core.ejector.table = table  # type: ignore[attr-defined]
    calls = {"add": lambda table: add(table, 9)}
    Calling.call = staticmethod(calls.get(use) or (lambda table: getattr(table, use)()))
    with pytest.raises(LockReentryError, match="the table's lock is held by this very call"):
        add(table, 4)
    assert everything(table) == before
    Calling.call = staticmethod(lambda table: table.size())
    add(table, 4)
    assert table.identities().tolist() == [2, 3, 4]


class Short(SampleStrategy):
    """Wrong: gives fewer points than asked for."""

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        slots = self.view.live_slots()[:1]
        return self.view.points(slots, np.zeros_like(slots))


class Wrong(EjectionStrategy):
    """Wrong: gives nobody."""

    def sample(self, count: int, random: np.random.Generator) -> Int64Array:
        return np.empty(0, np.int64)


def test_an_ejector_that_frees_too_little_is_named(make_table: MakeTable) -> None:
    table = make_table(maxlen=15, ejector=Wrong())
    add(table, 1, 2, 3)
    before = everything(table)
    with pytest.raises(StrategyError) as caught:
        add(table, 4)
    assert str(caught.value) == (
        "the ejector freed 0 transitions in 0 slots, 5 were asked for: it must return distinct "
        "live slots that free at least as many"
    )
    assert everything(table) == before


def test_a_sampler_that_gives_too_few_is_named(make_table: MakeTable) -> None:
    table = make_table(sampler=Short())
    add(table, 1)
    with pytest.raises(StrategyError) as caught:
        table.sample(4, 2)
    assert str(caught.value) == (
        "the sampler chose 1 windows, 4 were asked for: it must return exactly so many, or none "
        "at all when no sequence offers one"
    )
    assert table.stats().windows_sampled == 0


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_tables_own_strategy_does_not_travel_without_its_table(make_table, act) -> None:
    own = PrioritizedSampleStrategy(beta=0.5)
    assert pickle.loads(pickle.dumps(own)).config() == own.config()
    table = make_table(sampler=own)
    for strategy in (table.sampler, table.ejector):
        with pytest.raises(SpecError, match="a table's own and is not pickled or copied.*pass the"):
            act(strategy)
    assert pickle.loads(pickle.dumps(own)).config() == own.config()
