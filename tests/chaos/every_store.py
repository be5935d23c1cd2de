"""Kills a process after each of its stores in turn, and lets the survivors go on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest

from shmtable import ArrayMemoryTable, DuplicateIdentityError
from tests.chaos.beside import HalfWritten
from tests.chaos.content import Content, Entry, add, look, remember
from tests.chaos.scenario import Operation, Scenario, functions, stages_after
from tests.chaos.stores import Shadow, Stores
from tests.chaos.watch import watch
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew
from tests.strategies.derived import wrong_with_derived

# Enough to eject whatever else there is, so that every place is used again.
FRESH = tuple(
    Entry(2000 + number, length) for number, length in enumerate((7, 20, 1, 13, 9, 16, 2, 11, 5))
)


def recover(table: ArrayMemoryTable) -> None:
    """Any call under the lock repairs first what was left behind."""
    table.identities()


def stores_of(table: ArrayMemoryTable, operate: Operation, *, from_file: bool = False) -> list[str]:
    """What a process stores that makes this call; made in a process of its own."""
    with Crew("fork") as crew:
        crew.add(_record, table, operate, from_file)
        crew.go()
        labels: list[str] = crew.results()[0]
    return labels


def die(table: ArrayMemoryTable, operate: Operation, fatal: int) -> None:
    """A process makes this call and is killed right after its store number ``fatal``."""
    with Crew("fork") as crew:
        crew.add(_make_last_call, table, operate, fatal).expected_exit = -signal.SIGKILL
        crew.go()
        crew.results()


def _record(table: ArrayMemoryTable, operate: Operation, from_file: bool) -> list[str]:
    # Rows that come from a file are stored by the kernel, where nobody can watch it.
    shadow = Shadow(table._core, rows=not from_file)
    stores = Stores(shadow=shadow)
    watch(table._core, stores)
    operate(table)
    shadow.compare("the end")
    return stores.labels


def _make_last_call(table: ArrayMemoryTable, operate: Operation, fatal: int) -> None:
    watch(table._core, Stores(fatal))
    operate(table)


class Trial:
    """A scenario's table, put back to how it was before every death.

    Putting it back saves half the time of making it anew. The mutex is left alone, by which
    nobody notices a thing: what was left undone is known from the dirty word.

    Args:
        scenario: the situation and the call.
        table: made by ``scenario.table``.
        whole: die after the stores outside ``scenario.within``, too.

    Attributes:
        deaths: number and description of each store after which the caller is going to die.
    """

    def __init__(self, scenario: Scenario, table: ArrayMemoryTable, *, whole: bool = False) -> None:
        self._scenario = scenario
        self._table = table
        self._stages = scenario.stages(self._look())
        self._start = Shadow(table._core)
        self._unnoticed = remember(table)
        with self._beside():
            labels = stores_of(table, scenario.operate, from_file=scenario.from_file)
        self._stage_after = stages_after(labels)
        assert self._stage_after[-1] == len(self._stages) - 1
        self.deaths = [
            (number, label)
            for number, label in enumerate(labels, 1)
            if whole or not scenario.within or scenario.within in functions(label)
        ]

    def every_death(self) -> int:
        """Die after each store of the call in turn; the number of deaths."""
        for number, label in self.deaths:
            with telling(f"death after store {number}, {label}"):
                self._start.restore()
                with self._beside() as writer:
                    die(self._table, self._scenario.operate, number)
                    self._survive(number, writer)
        return len(self.deaths)

    def every_second_death(self, first: int) -> int:
        """Die after one store of the call, and then after each store of the recovery in turn."""
        self._start.restore()
        die(self._table, self._scenario.operate, first)
        left_behind = Shadow(self._table._core)
        labels = stores_of(self._table, recover)
        for number, label in enumerate(labels, 1):
            with telling(f"deaths after store {first} and recovery's store {number}, {label}"):
                left_behind.restore()
                die(self._table, recover, number)
                self._survive(first, None)
        return len(labels)

    def first_commit(self) -> int | None:
        """The first store that takes the call a stage further."""
        return next((n for n, stage in enumerate(self._stage_after, 1) if stage), None)

    def find(self, matches: Callable[[str], bool]) -> int:
        """The first store whose description matches."""
        return next(number for number, label in self.deaths if matches(label))

    def _look(self) -> Content:
        return look(self._table)._replace(writing=self._scenario.beside)

    def _beside(self) -> AbstractContextManager[HalfWritten | None]:
        beside = self._scenario.beside
        return nullcontext() if beside is None else HalfWritten(self._table, beside)

    def _survive(self, number: int, writer: HalfWritten | None) -> None:
        """What a survivor finds and does after a death in the call, after store ``number``.

        Raises:
            AssertionError: something was lost, torn, left behind or invented.
        """
        table = self._table
        assert table.check() == []
        assert wrong_with_derived(table) == []
        now = self._look()
        # What was committed is there, what was not never was. Recovery decides nothing.
        expected = self._stages[self._stage_after[number - 1]]
        assert now == expected, f"{now}, not {expected}"
        if self._scenario.repeatable:
            self._scenario.operate(table)
            now = self._look()
            assert now == self._stages[-1]
        if writer is not None:
            writer.finish()
            now = now.finished()
            assert look(table) == now
        self._go_on(now)

    def _go_on(self, now: Content) -> None:
        """The survivor adds, samples and removes as if nothing had happened."""
        table, scenario = self._table, self._scenario
        if scenario.free is not None:
            scenario.free(table)
        for entry in scenario.adds:
            if now.has(entry.identity) and not scenario.replaces:
                with pytest.raises(DuplicateIdentityError):
                    add(table, entry)
            else:
                now = self._add(now, entry)
        assert table.stats().writing_transitions == 0, "room of the dead is still taken"
        assert look(table) == now
        for entry in FRESH:
            now = self._add(now, entry)
        assert content.wrong_with(table.sample(16, 4), 4) == []
        table.remove(FRESH[-1].identity)
        assert look(table) == now.without(FRESH[-1].identity)
        assert table.check() == []
        assert wrong_with_derived(table) == []

    def _add(self, now: Content, entry: Entry) -> Content:
        add(self._table, entry)
        now = now.added(entry, replace=self._scenario.replaces)
        found = self._table.identities().tolist()
        assert found == [known.identity for known in now.entries]
        assert self._unnoticed() == []
        return now


@contextmanager
def telling(when: str) -> Iterator[None]:
    """Says in which history it was that something went wrong."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{when}: {error!r}") from error
