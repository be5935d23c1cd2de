"""Waiting for room and for data that other processes must provide."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shmtable import ArrayMemoryTable, WaitTimeoutError
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, Member, link

LOCKS = ["robust", "portable"]
LONG_S = 60.0  # longer than any test should wait; nothing below is timed


class _SlowStorage:
    """Stops in the middle of a copy until the test says go on."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def write(self, *arguments: Any) -> None:
        link().tell("writing")
        link().hear()
        self._storage.write(*arguments)


def _add_slowly(table: ArrayMemoryTable, identity: int, length: int) -> None:
    core = table._core
    core.storage = _SlowStorage(core.storage)  # type: ignore[assignment]
    table.add_sequence(identity, content.sequence(identity, length))


def _half_written(crew: Crew, table: ArrayMemoryTable, identity: int, length: int) -> Member:
    """A member that holds a reservation and is in the middle of its copy."""
    member = crew.add(_add_slowly, table, identity, length)
    crew.go()
    assert member.hear() == "writing"
    return member


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("end", ["commit", "death"])
def test_an_add_waits_for_room_that_another_process_is_writing_into(
    make_table, lock: str, end: str
) -> None:
    table = make_table(columns=content.columns(), maxlen=100, lock=lock)
    with Crew("fork") as crew, ThreadPoolExecutor(1) as pool:
        member = _half_written(crew, table, 1, 60)
        table.add_sequence(2, content.sequence(2, 40))
        # 60 transitions are being written: only the 40 can be ejected, too few for 50.
        with pytest.raises(WaitTimeoutError, match="no room in 0.05 s.*others are writing"):
            table.add_sequence(3, content.sequence(3, 50), timeout_s=0.05)
        assert table.identities().tolist() == [2]
        waiting = pool.submit(table.add_sequence, 3, content.sequence(3, 50), timeout_s=LONG_S)
        if end == "commit":
            member.tell("go on")
        else:
            member.kill()
        waiting.result(timeout=LONG_S)
        crew.results()
    # Ejected were the oldest: the 40 first, then, where it was committed, the 60.
    left = {"commit": [3], "death": [2, 3]}[end]
    assert table.identities().tolist() == left
    for identity in left:
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []
    assert table.stats().writing_transitions == 0


def _sample_and_tell(table: ArrayMemoryTable, steps: int) -> list[str]:
    try:
        table.sample(4, steps, timeout_s=0.05)
    except WaitTimeoutError:
        link().tell("nothing yet")
    sample = table.sample(4, steps, timeout_s=LONG_S)
    return content.wrong_with(sample, steps)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_sample_waits_for_an_add_of_another_process(make_table, lock: str) -> None:
    table = make_table(columns=content.columns(), lock=lock)
    with Crew("fork") as crew:
        for _ in range(2):
            crew.add(_sample_and_tell, table, 6)
        crew.go()
        for member in crew.members:
            assert member.hear() == "nothing yet"
        table.add_sequence(1, content.sequence(1, 5))  # too short: they go on waiting
        table.add_sequence(2, content.sequence(2, 6))
        assert crew.results() == [[], []]


def _feed(table: ArrayMemoryTable) -> None:
    while (identity := link().hear()) is not None:
        table.add_sequence(identity, content.sequence(identity, 3))


@pytest.mark.parametrize("lock", LOCKS)
def test_samplers_and_adders_wait_for_each_other_many_times(make_table, lock: str) -> None:
    table = make_table(columns=content.columns(), lock=lock)
    with Crew("fork") as crew:
        member = crew.add(_feed, table)
        crew.go()
        for identity in range(200):
            member.tell(identity)
            sample = table.sample(2, 3, timeout_s=LONG_S)
            assert sample["who"][:, 0].tolist() == [identity] * 2
            table.remove(identity)
        member.tell(None)
        crew.results()


@pytest.mark.parametrize("lock", LOCKS)
def test_an_identity_being_written_is_taken(make_table, lock: str) -> None:
    table = make_table(columns=content.columns(), lock=lock)
    with Crew("fork") as crew:
        member = _half_written(crew, table, 7, 5)
        with pytest.raises(ValueError, match="identity 7 is already being written"):
            table.add_sequence(7, content.sequence(7, 5))
        member.kill()
        member.join()
        table.add_sequence(7, content.sequence(7, 5, version=1))
        crew.results()
    assert table.sequence(7)["who"].tolist()[:3] == [7, 1, 5]
    assert table.stats().writing_transitions == 0


@pytest.mark.parametrize("lock", LOCKS)
def test_room_of_the_dead_is_used_before_anybody_is_ejected(make_table, lock: str) -> None:
    table = make_table(columns=content.columns(), maxlen=100, lock=lock)
    table.add_sequence(1, content.sequence(1, 40))
    with Crew("fork") as crew:
        member = _half_written(crew, table, 2, 50)
        table.add_sequence(3, content.sequence(3, 10))
        member.kill()
        crew.results()
    # Nothing was cut off: no recovery comes along to take the 50 back.
    table.add_sequence(4, content.sequence(4, 50))
    assert table.stats().recoveries == 0
    assert table.identities().tolist() == [1, 3, 4]
