"""A device's memory is lost with its owner; what a killed writer had begun is not seen."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from shmtable import ArrayMemoryTable, DeviceMemoryError
from shmtable import table as table_module
from shmtable.protocols import device, sample
from shmtable.shm import process
from tests.device.backends import FileBackend, LateBackend
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., Any]


def _make_and_hold(pipe: Any) -> None:
    table_module.storage_backend = lambda device, directory: FileBackend()  # type: ignore
    table = content.make()
    table.add_sequence(1, content.sequence(1, 9))
    pipe.put(table)
    link().tell("sent")
    link().hear()


def test_when_its_owner_dies_the_next_call_says_so() -> None:
    with Crew("spawn") as crew:
        queue = crew.context.Queue()
        owner = crew.add(_make_and_hold, queue)
        crew.go()
        assert owner.hear() == "sent"
        table = queue.get(timeout=60)
        assert content.wrong_with(table.sample(8, 3), 3) == []
        owner.kill()
        owner.join()
        for call in (
            lambda: table.sample(8, 3),
            lambda: table.add_sequence(2, content.sequence(2, 5)),
            table.size,
            table.check,
        ):
            with pytest.raises(DeviceMemoryError, match=f"process {owner.pid} has ended, which"):
                call()
        # As the process ends: what is lost is not touched any more, not to be given back either.
        memory = table._open.memory
        device._let_go(memory._held, memory._storages, memory._watch)
        assert len(memory.tensor) > 0
        table.close()
        queue.close()
        queue.join_thread()


def _own_for_ever(pipe: Any) -> None:
    table_module.storage_backend = lambda device, directory: FileBackend()  # type: ignore
    table = content.make()
    for _ in range(2):
        pipe.put(table)
    link().tell("sent")
    link().hear()


def test_who_waits_for_a_dead_owner_is_told() -> None:
    with Crew("spawn") as crew:
        queue = crew.context.Queue()
        owner = crew.add(_own_for_ever, queue)
        crew.go()
        assert owner.hear() == "sent"
        with queue.get(timeout=60) as table:
            other = queue.get(timeout=60)  # somebody else is left who could add
            owner.kill()
            owner.join()
            with pytest.raises(DeviceMemoryError, match="has ended"):
                # As one who had begun to wait before: every call begins with a look.
                sample(table._open, 4, 2, None)
            other.close()
        queue.close()
        queue.join_thread()


def test_a_watch_sees_an_end() -> None:
    with Crew("spawn") as crew:
        member = crew.add(_hear)
        crew.go()
        other = process.ProcessId(member.pid, process.start_time(member.pid))
        watch = process.Watch(other)
        assert not watch.is_gone()
        # One with its number and another start is not it.
        assert process.Watch(process.ProcessId(member.pid, other.start - 1)).is_gone()
        member.kill()
        member.join()
        assert watch.is_gone()
        assert process.Watch(other).is_gone()


def _churn(table: ArrayMemoryTable, first: int) -> None:
    for identity in range(first, first + 1_000_000):
        table.add_sequence(identity, content.sequence(identity, 1 + identity % 24, width=64))
        if identity == first:
            link().tell("writing")


def test_killed_writers_leave_whole_windows(make_table: MakeTable) -> None:
    table = make_table(columns=content.columns(64), maxlen=300)
    with Crew("fork") as crew:
        crew.start(_churn, table, 0)
        for number in range(1, 9):
            victim = crew.start(_churn, table, number << 24)
            assert [victim.hear(), victim.hear()] == ["ready", "writing"]
            for steps in range(1, 20):
                found = table.sample(32, 1 + steps % 8, timeout_s=60)
                assert content.wrong_with(found, 1 + steps % 8) == []
            victim.kill()
            victim.join()
        crew.members[0].kill()
        crew.members[0].join()
    assert table.check() == []
    for identity in table.identities().tolist():
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []


def _hear() -> None:
    link().hear()


def _use_forked(table: ArrayMemoryTable) -> list[str]:
    said = []
    for call in (table.size, lambda: table.sample(4, 2), lambda: pickle.dumps(table)):
        with pytest.raises(DeviceMemoryError) as caught:
            call()
        said.append(str(caught.value))
    table.close()
    return said


def test_a_forked_child_is_refused_in_words(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "storage_backend", lambda *_: LateBackend())
    table = make_table()
    table.add_sequence(1, small_sequence(1, 5))
    with Crew("fork") as crew:
        crew.add(_use_forked, table)
        crew.go()
        (said,) = crew.results()
    assert len(said) == 3
    assert all("start it by spawn or forkserver" in text for text in said)
    assert torn_windows(table.sample(8, 2), 2) == []


def _forget(tables: list[ArrayMemoryTable]) -> bool:
    memory = weakref.ref(tables[0]._open.memory.tensor)  # type: ignore[union-attr]
    tables.clear()
    gc.collect()
    return memory() is not None


def test_a_forked_child_gives_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # That would be a call of the device.
    monkeypatch.setattr(table_module, "storage_backend", lambda *_: LateBackend())
    tables = [content.make()]
    with Crew("fork") as crew:
        crew.add(_forget, tables)
        crew.go()
        assert crew.results() == [True]
    tables[0].close()
