"""A table costs one descriptor, whatever is done with it."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from shmtable import ArrayMemoryTable, Column
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link

LOCKS = ["robust", "portable"]


def _descriptors() -> int:
    # What a closed table consists of refers to itself and waits for the collector. (The members
    # freeze it when they begin: it would look through all of torch each time, for seconds.)
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def _cost_of(count: int, lock: str) -> list[int]:
    """Descriptors that a table of so many columns takes: at first, in use, and when closed."""
    gc.freeze()
    names = [f"column{number}" for number in range(count)]
    columns = [Column("actions", (), "int64"), *(Column(name, (2,), "float32") for name in names)]
    before = _descriptors()
    taken = []
    with content.make(columns=columns, maxlen=2000, lock=lock) as table:
        taken.append(_descriptors() - before)
        rows = [[0.0, 0.0]] * 3
        for identity in range(200 if count < 10 else 20):
            table.add_sequence(identity, {"actions": [1, 2, 3], **dict.fromkeys(names, rows)})
            table.sample(4, 2)
        taken.append(_descriptors() - before)
        table.resize(4000)
        table.clear()
        taken.append(_descriptors() - before)
    taken.append(_descriptors() - before)
    return taken


@pytest.mark.parametrize("lock", LOCKS)
def test_descriptors_do_not_depend_on_columns_or_content(lock: str) -> None:
    with Crew("fork") as crew:  # in processes of their own: pytest opens and closes files too
        for count in (1, 100):
            crew.add(_cost_of, count, lock)
        crew.go()
        for taken in crew.results():
            assert taken == [1, 1, 1, 0]


def _own(name: str, lock: str) -> None:
    with content.make(name=name, lock=lock):
        link().tell("created")
        link().hear()


def _attach_many_times(name: str, rounds: int) -> list[int]:
    gc.freeze()
    link().hear()
    taken = [_descriptors()]
    for _ in range(rounds):
        with ArrayMemoryTable.attach(name) as table, ArrayMemoryTable.attach(name) as again:
            assert table.size() == again.size()
            taken.append(_descriptors())
        taken.append(_descriptors())
    return taken


@pytest.mark.parametrize("lock", LOCKS)
def test_attaching_and_closing_leaves_no_descriptor(
    unique_name: Callable[[], str], lock: str
) -> None:
    name = unique_name()
    with Crew("fork") as crew:
        owner = crew.add(_own, name, lock)
        attacher = crew.add(_attach_many_times, name, 20)
        crew.go()
        assert owner.hear() == "created"
        attacher.tell("attach")
        attacher.join()
        owner.tell("close")
        taken = crew.results()[1]
    assert taken == [taken[0], *([taken[0] + 1, taken[0]] * 20)]


def _receive_many_times(inbox: Any, rounds: int) -> list[int]:
    gc.freeze()
    taken = []
    with inbox.get() as kept:
        for _ in range(rounds):
            with inbox.get() as table:
                assert table.size() == kept.size()
                taken.append(_descriptors())
        link().tell("received")
        link().hear()
    return taken


@pytest.mark.parametrize("lock", LOCKS)
def test_receiving_a_table_again_takes_no_further_descriptor(make_table, lock: str) -> None:
    rounds = 10
    table = make_table(columns=content.columns(), lock=lock)
    with Crew("fork") as crew:
        queue = crew.context.Queue()
        member = crew.add(_receive_many_times, queue, rounds)
        crew.go()
        for _ in range(rounds + 1):
            queue.put(table)
        assert member.hear() == "received"
        member.tell("end")
        taken = crew.results()[0]
        queue.close()
        queue.join_thread()
    assert taken == [taken[0]] * rounds


def _open_at_home(lock: str) -> list[int]:
    gc.freeze()
    with content.make(lock=lock) as table:
        taken = [_descriptors()]
        for _ in range(5):
            with pickle.loads(pickle.dumps(table)) as twin:
                assert twin.size() == 0
                taken.append(_descriptors())
    return taken


@pytest.mark.parametrize("lock", LOCKS)
def test_a_table_unpickled_where_it_is_open_takes_no_further_descriptor(lock: str) -> None:
    with Crew("fork") as crew:
        crew.add(_open_at_home, lock)
        crew.go()
        taken = crew.results()[0]
    assert taken == [taken[0]] * 6
