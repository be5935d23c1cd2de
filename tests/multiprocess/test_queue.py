"""A queue between processes: every sequence handed out once, in order, whoever is killed."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import pytest

from shmtable import ArrayMemoryTable, FifoSampleStrategy, Queue, RateLimitedError
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, Member, link

LONG_S = 60.0
SIZE = 8
WRITERS = 4
EACH = 60  # sequences of each writer
TOTAL = WRITERS * EACH


def _queue(make_table: Any, **options: Any) -> ArrayMemoryTable:
    table: ArrayMemoryTable = make_table(
        columns=content.columns(), sampler=FifoSampleStrategy(), limiter=Queue(SIZE), **options
    )
    return table


def _write(table: ArrayMemoryTable, number: int) -> None:
    for identity in range(number * 1000, number * 1000 + EACH):
        length = 4 + identity % 9
        table.add_sequence(identity, content.sequence(identity, length), timeout_s=LONG_S)


def _take(table: ArrayMemoryTable, count: int) -> list[int]:
    sample = table.sample(count, 4, timeout_s=LONG_S)
    assert content.wrong_with(sample, 4) == []
    found: list[int] = sample["who"][:, 0].tolist()
    return found


@pytest.mark.parametrize(
    ("method", "lock"), [("fork", "robust"), ("fork", "portable"), ("spawn", "robust")]
)
def test_four_writers_and_a_learner(make_table: Any, method: str, lock: str) -> None:
    table = _queue(make_table, lock=lock)
    with Crew(method) as crew:
        for number in range(WRITERS):
            crew.add(_write, table, number)
        crew.go()
        # Nobody takes anything: the writers fill it and stop.
        taken: list[int] = []
        while table.stats().sequences < SIZE:
            pass
        assert not table.can_insert()
        with pytest.raises(RateLimitedError, match="8 sequences wait to be sampled"):
            table.add_sequence(9999, content.sequence(9999, 4), timeout_s=0)
        while len(taken) < TOTAL:
            taken += _take(table, 1 + len(taken) % min(SIZE, TOTAL - len(taken)))
            stats = table.stats()
            assert stats.sequences <= SIZE
            assert stats.sequences_removed == len(taken), "nothing but the learner removes"
        crew.results()
    assert table.size() == 0
    assert len(set(taken)) == len(taken) == TOTAL
    for number in range(WRITERS):
        own = [identity for identity in taken if identity // 1000 == number]
        assert own == list(range(number * 1000, number * 1000 + EACH))


def _read(table: ArrayMemoryTable) -> None:
    while True:
        link().tell(_take(table, 2))


def test_readers_that_are_killed(make_table: Any) -> None:
    """None is handed out twice; what is missing, a reader had with it when it was killed."""
    table = _queue(make_table)
    chance = random.Random(7)
    told: list[int] = []
    kills = 0

    def heard(member: Member) -> None:
        for message in member.messages:
            if message != "ready":
                told.extend(message)

    with Crew("fork") as crew:
        for number in range(WRITERS):
            crew.start(_write, table, number)
        while table.stats().sequences_removed < TOTAL - 60:
            readers = [crew.start(_read, table) for _ in range(2)]
            ends = table.stats().sequences_removed + chance.randrange(1, 30)
            while table.stats().sequences_removed < ends:
                for reader in readers:
                    reader.look()
            for reader in readers:
                reader.kill()
                reader.join()  # takes in all that it has said
                heard(reader)
                crew.dismiss(reader)
                kills += 1
        told += _take_the_rest(table)
        for member in crew.members:
            member.join()
    assert len(set(told)) == len(told), "handed out twice"
    assert set(told) <= {n * 1000 + i for n in range(WRITERS) for i in range(EACH)}
    # Two at a time were on their way out of a killed reader, at most.
    assert TOTAL - 2 * kills <= len(told) <= TOTAL
    assert table.size() == 0 and table.check() == []


def _take_the_rest(table: ArrayMemoryTable) -> list[int]:
    found: list[int] = []
    while table.stats().sequences_removed < TOTAL:
        found += _take(table, 1)
    return found


def _die_in_copy(table: ArrayMemoryTable) -> None:
    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    table._core.storage.gather_copied = die  # type: ignore[method-assign, assignment]
    table.sample(2, 4)


def test_a_reader_that_dies_in_the_copy_has_taken_nothing(make_table: Any) -> None:
    table = _queue(make_table)
    for identity in range(4):
        table.add_sequence(identity, content.sequence(identity, 5))
    with Crew("fork") as crew:
        for _ in range(3):
            crew.add(_die_in_copy, table).expected_exit = -signal.SIGKILL
        crew.go()
        crew.results()
    assert _take(table, 4) == [0, 1, 2, 3]
