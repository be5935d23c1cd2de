"""Kills a process after each of its stores in turn, and lets the survivors go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import pytest

from shmtable import ArrayMemoryTable, DuplicateIdentityError
from tests.chaos.content import Content, Entry, add, look, remember
from tests.chaos.scenarios import Operation, Scenario
from tests.chaos.stores import Shadow, Stores
from tests.chaos.watch import watch
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew

# Enough to eject whatever else there is, so that every place is used again.
FRESH = tuple(
    Entry(2000 + number, length) for number, length in enumerate((7, 20, 1, 13, 9, 16, 2, 11, 5))
)


def recover(table: ArrayMemoryTable) -> None:
    """Any call under the lock repairs first what was left behind."""
    table.identities()


def stores_of(table: ArrayMemoryTable, operate: Operation) -> list[str]:
    """What a process stores that makes this call; made in a process of its own."""
    with Crew("fork") as crew:
        crew.add(_record, table, operate)
        crew.go()
        labels: list[str] = crew.results()[0]
    return labels


def die(table: ArrayMemoryTable, operate: Operation, fatal: int) -> None:
    """A process makes this call and is killed right after its store number ``fatal``."""
    with Crew("fork") as crew:
        crew.add(_make_last_call, table, operate, fatal).expected_exit = -signal.SIGKILL
        crew.go()
        crew.results()


def _record(table: ArrayMemoryTable, operate: Operation) -> list[str]:
    shadow = Shadow(table._core)
    stores = Stores(shadow=shadow)
    watch(table._core, stores)
    operate(table)
    shadow.compare("the end")
    return stores.labels


def _make_last_call(table: ArrayMemoryTable, operate: Operation, fatal: int) -> None:
    watch(table._core, Stores(fatal))
    operate(table)


def points(scenario: Scenario, lock: str) -> list[tuple[int, str]]:
    """Number and description of the scenario's stores."""
    with scenario.table(lock) as table:
        labels = stores_of(table, scenario.operate)
    return [
        (number, label)
        for number, label in enumerate(labels, 1)
        if not scenario.within or scenario.within in label.partition(":")[0].split(" > ")
    ]


def survive(scenario: Scenario, lock: str, fatal: Sequence[int]) -> int:
    """One history: deaths in the call and then in recoveries, and what comes after.

    Args:
        scenario: the situation and the call.
        lock: the table's lock kind.
        fatal: the store after which the first process dies in the call; the stores after which
            further processes die, one after the other, in recovering from it.

    Returns:
        Which of the scenario's stages was found.

    Raises:
        AssertionError: something was lost, torn, left behind or invented.
    """
    with scenario.table(lock) as table:
        before = look(table)
        unnoticed = remember(table)
        die(table, scenario.operate, fatal[0])
        for number in fatal[1:]:
            die(table, recover, number)
        assert table.check() == []
        now = look(table)
        stages = scenario.stages(before)
        assert now in stages
        stage = stages.index(now)
        if scenario.repeatable:
            scenario.operate(table)
            now = look(table)
            assert now == stages[-1]
        _go_on(table, now, scenario)
        assert unnoticed() == []
    return stage


def every_store(scenario: Scenario, lock: str) -> int:
    """Dies after each store of the scenario's call in turn; the number of deaths."""
    reached = 0
    deaths = points(scenario, lock)
    for number, label in deaths:
        try:
            stage = survive(scenario, lock, [number])
            # The call is always the same: the later it ends, the further it got.
            assert stage >= reached
        except AssertionError as error:
            raise AssertionError(f"death after store {number}, {label}: {error}") from error
        reached = stage
    if not scenario.within:
        with scenario.table(lock) as table:
            assert reached == len(scenario.stages(look(table))) - 1
    return len(deaths)


def _go_on(table: ArrayMemoryTable, now: Content, scenario: Scenario) -> None:
    """The survivor adds, samples and removes as if nothing had happened."""
    for entry in scenario.adds:
        if now.has(entry.identity) and not scenario.replaces:
            with pytest.raises(DuplicateIdentityError):
                add(table, entry)
        else:
            now = _add(table, now, entry, scenario)
    assert table.stats().writing_transitions == 0
    assert look(table) == now
    for entry in FRESH:
        now = _add(table, now, entry, scenario)
    assert content.wrong_with(table.sample(16, 4), 4) == []
    table.remove(FRESH[-1].identity)
    assert look(table) == now.without(FRESH[-1].identity)
    assert table.check() == []


def _add(table: ArrayMemoryTable, now: Content, entry: Entry, scenario: Scenario) -> Content:
    add(table, entry)
    now = now.added(entry, replace=scenario.replaces)
    assert table.identities().tolist() == [known.identity for known in now.entries]
    return now


def recoveries(scenario: Scenario, lock: str, first: int) -> Iterator[list[int]]:
    """Every death in the recovery from one death, as arguments for ``survive``."""
    with scenario.table(lock) as table:
        die(table, scenario.operate, first)
        stores = len(stores_of(table, recover))
    yield from ([first, second] for second in range(1, stores + 1))
