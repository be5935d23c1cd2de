"""A process that is stopped in the middle of a section is named, and may go on later."""

from __future__ import annotations

import os
import signal

import pytest

from shmtable import ArrayMemoryTable, LockTimeoutError
from tests.chaos.content import Entry, add, look
from tests.chaos.every_store import stores_of
from tests.chaos.operations import adding
from tests.chaos.scenario import Operation, Scenario, makes_live
from tests.chaos.scenarios import NEW
from tests.chaos.stores import Stores
from tests.chaos.watch import watch
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew

ADD: Scenario = adding("add that ejects one", Entry(10, 17))


def _stop(table: ArrayMemoryTable, operate: Operation, after: int) -> None:
    watch(table._core, Stores(after, number=signal.SIGSTOP))
    operate(table)


def _wait_until_stopped(pid: int) -> None:
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status


@pytest.mark.parametrize("lock", ["robust", "portable"])
def test_a_stopped_holder_is_named_and_may_go_on(lock: str) -> None:
    with ADD.table(lock) as table, Crew("fork") as crew:
        labels = stores_of(table, ADD.operate)
        live = next(number for number, label in enumerate(labels, 1) if makes_live(label))
    with ADD.table(lock) as table, Crew("fork") as crew:
        before = look(table)
        member = crew.start(_stop, table, ADD.operate, live)
        _wait_until_stopped(member.pid)
        with pytest.raises(
            LockTimeoutError,
            match=rf"waited 0.3\d* s for the table's lock; it seems held by process {member.pid} "
            r"\(.*python.*\), thread \d+, for [\d.]+ s: continue or end that process, or raise "
            r"timeout_s; 1 other process has the table open, 0 of them added to it: pid "
            rf"{member.pid} \(alive, never added\)",
        ) as caught:
            table._core.guard.run(lambda: None, timeout_s=0.3)
        assert caught.value.fields["pid"] == member.pid
        os.kill(member.pid, signal.SIGCONT)
        crew.results()
        assert look(table) == before.added(*ADD.adds)
        assert table.stats().recoveries == 0
        assert table.check() == []


@pytest.mark.parametrize("lock", ["robust", "portable"])
def test_who_is_stopped_while_copying_holds_nobody_up(lock: str) -> None:
    with ADD.table(lock) as table, Crew("fork") as crew:
        labels = stores_of(table, ADD.operate)
        copying = next(n for n, label in enumerate(labels, 1) if "write: " in label)
    with ADD.table(lock) as table, Crew("fork") as crew:
        now = look(table).adding(ADD.adds[0])[-2]  # the ejection for it has been made
        member = crew.start(_stop, table, ADD.operate, copying)
        _wait_until_stopped(member.pid)
        # It lives, so its room stays its own.
        now = now._replace(writing=ADD.adds[0])
        for entry in (NEW._replace(identity=11), Entry(12, 30)):
            add(table, entry)
            now = now.added(entry)
            assert look(table) == now._replace(writing=None)
        assert content.wrong_with(table.sample(16, 2), 2) == []
        os.kill(member.pid, signal.SIGCONT)
        crew.results()
        assert look(table) == now.finished()
        assert table.check() == []
