"""A table travels through queues and pipes, and outlives those who sent it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from shmtable import ArrayMemoryTable
from shmtable.errors import ArenaNotFoundError
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link

STARTS = ("fork", "spawn", "forkserver")


def _use(table: ArrayMemoryTable, identity: int) -> list[int]:
    """Looks at a table, adds to it, samples; what it knew before."""
    known: list[int] = table.identities().tolist()
    table.add_sequence(identity, content.sequence(identity, 5))
    assert content.wrong_with(table.sample(20, 3), 3) == []
    return known


def _relay(passed: list[ArrayMemoryTable], inbox: Any, outbox: Any) -> list[list[int]]:
    """Was passed a table twice, receives it once more, and closes one hold after the other."""
    received = inbox.get()
    known = []
    for identity, table in enumerate([*passed, received], 2):
        known.append(_use(table, identity))
        if table is not received:
            table.close()
    outbox.put(received)
    outbox.close()
    outbox.join_thread()  # what is in the pipe stays there when this process ends
    return known


def _receive(inbox: Any, identity: int) -> list[int]:
    link().hear()
    return _use(inbox.get(), identity)


@pytest.mark.parametrize("method", STARTS)
def test_a_table_is_passed_on_in_every_way(make_table, method: str) -> None:
    table = make_table(columns=content.columns())
    table.add_sequence(1, content.sequence(1, 5))
    with pickle.loads(pickle.dumps(table)) as twin, Crew(method) as crew:
        first, second = crew.context.Queue(), crew.context.Queue()
        relay = crew.add(_relay, [table, twin], first, second)
        last = crew.add(_receive, second, 5)
        crew.go()
        first.put(table)
        relay.join()  # the sender is gone before the receiver opens what it sent
        last.tell("receive")
        assert crew.results() == [[[1], [1, 2], [1, 2, 3]], [1, 2, 3, 4]]
        for queue in (first, second):
            queue.close()
            queue.join_thread()
    assert table.identities().tolist() == [1, 2, 3, 4, 5]
    for identity in range(1, 6):
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []


def _make_and_send(outbox: Any, lock: str) -> None:
    with content.make(lock=lock) as table:
        table.add_sequence(1, content.sequence(1, 5))
        outbox.put(table)
        outbox.close()
        outbox.join_thread()
        link().tell("sent")
        link().hear()


@pytest.mark.parametrize("lock", ["robust", "portable"])
def test_a_table_outlives_its_maker_in_those_who_received_it(lock: str) -> None:
    with Crew("fork") as crew:
        queue, onward = crew.context.Queue(), crew.context.Queue()
        maker = crew.add(_make_and_send, queue, lock)
        heir = crew.add(_receive, onward, 3)
        crew.go()
        assert maker.hear() == "sent"
        with queue.get(timeout=60) as table:
            maker.kill()  # its close() will never run
            maker.join()
            table.add_sequence(2, content.sequence(2, 5))
            onward.put(table)
            heir.tell("receive")
            heir.join()
            assert heir.result == [1, 2]
            assert table.identities().tolist() == [1, 2, 3]
            assert content.wrong_with(table.sample(50, 2), 2) == []
            assert table.check() == []
        for used in (queue, onward):
            used.close()
            used.join_thread()


def test_a_table_sent_by_somebody_who_has_gone_is_not_found() -> None:
    with Crew("fork") as crew:
        queue = crew.context.Queue()
        maker = crew.add(_make_and_send, queue, "robust")
        crew.go()
        assert maker.hear() == "sent"
        maker.kill()
        maker.join()
        with pytest.raises(ArenaNotFoundError, match="keep a process alive"):
            queue.get(timeout=60)
        queue.close()
        queue.join_thread()
