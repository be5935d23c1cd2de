"""A process may die after any store that concerns the limiter: its counts stay true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shmtable import ArrayMemoryTable, MinSize, SampleToInsertRatio
from shmtable.protocols.pace import Pace
from tests.chaos.content import Entry, add
from tests.chaos.every_store import die, stores_of, telling
from tests.chaos.stores import Shadow
from tests.multiprocess import content

OLD = SampleToInsertRatio(2.0, 2, 30, per="sequence")
NEW = SampleToInsertRatio(0.5, 30, 300.5)


def ahead(table: ArrayMemoryTable) -> float:
    """How far adds are ahead of samples."""
    core = table._core

    def look() -> float:
        used = core.pace._set_locked()
        return core.pace._standing_locked(used).ahead

    return core.guard.run(look)


def each_death(table: ArrayMemoryTable, operate: Callable[[ArrayMemoryTable], None]) -> Any:
    """Dies after each store of a call in turn, and stops for a look at what it leaves."""
    start = Shadow(table._core)
    labels = stores_of(table, operate)
    assert labels
    for number, label in enumerate(labels, 1):
        with telling(f"death after store {number}, {label}"):
            start.restore()
            # Memory that goes back in time is no table's: forget what was known of it.
            table._core.pace = Pace(table._core.arena.words, None)
            die(table, operate, number)
            yield number == len(labels)


def paced(limiter: Any) -> ArrayMemoryTable:
    table = content.make(maxlen=100, seed=1, limiter=limiter)
    add(table, *(Entry(identity, 10) for identity in range(5)))
    table.sample(2, 3)
    return table


def put_another(table: ArrayMemoryTable) -> None:
    table.limiter = NEW


def test_setting_it_is_whole() -> None:
    with paced(OLD) as table:
        was = ahead(table)
        found = set()
        for last in each_death(table, put_another):
            found.add(table.limiter)
            assert table.limiter in (OLD, NEW)
            assert ahead(table) == (was if table.limiter == OLD else 15.0)
            assert table.limiter == NEW or not last
            table.limiter = MinSize(3)
            assert table.limiter == MinSize(3)
        assert found == {OLD, NEW}


def test_beginning_anew_after_a_clear_is_whole() -> None:
    with paced(OLD) as table:
        table.clear()
        for _ in each_death(table, lambda table: table.limiter and None):
            assert table.limiter == OLD
            assert ahead(table) == 0


@pytest.mark.parametrize("limiter", [OLD, SampleToInsertRatio(2.0, 2, 300)], ids=["count", "steps"])
def test_every_add_counts_once_or_not_at_all(limiter: SampleToInsertRatio) -> None:
    with paced(limiter) as table:
        before, gain = ahead(table), 2.0 * limiter.insert_amount(7)
        outcomes = set()
        for last in each_death(table, lambda table: add(table, Entry(10, 7))):
            there = 10 in table.identities()
            assert ahead(table) == before + gain * there
            outcomes.add(there)
            assert there or not last
            assert table.can_insert(7)
        assert outcomes == {False, True}


def test_a_sample_that_was_handed_out_has_been_counted() -> None:
    with paced(OLD) as table:
        before = ahead(table)
        for last in each_death(table, lambda table: table.sample(3, 2) and None):
            assert ahead(table) in (before, before - 3)
            assert ahead(table) == before - 3 or not last
