"""Threads of one process use a table beside other processes, and while it forks."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

import pytest

from shmtable import ArrayMemoryTable, UniformEjectionStrategy
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew

LOCKS = ["robust", "portable"]
THREADS = 4
ADDS = 60


def _add_and_sample(table: ArrayMemoryTable, first: int, stop: threading.Event | None) -> int:
    """Adds ADDS sequences (or until ``stop``), samples after each; how many were added."""
    for number in count():
        if stop.is_set() if stop is not None else number == ADDS:
            return number
        identity = first + number
        table.add_sequence(identity, content.sequence(identity, 1 + identity % 13))
        steps = 1 + number % 4
        assert content.wrong_with(table.sample(8, steps, timeout_s=60), steps) == []
    raise AssertionError


def _with_threads(table: ArrayMemoryTable, first: int) -> int:
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [
            pool.submit(_add_and_sample, table, first + (thread << 12), None)
            for thread in range(THREADS)
        ]
        return sum(part.result() for part in parts)


@pytest.mark.parametrize("lock", LOCKS)
def test_many_threads_beside_other_processes(make_table, lock: str) -> None:
    table = make_table(
        columns=content.columns(), maxlen=400, ejector=UniformEjectionStrategy(), lock=lock
    )
    with Crew("fork") as crew:
        for number in range(2):
            crew.add(_with_threads, table, number << 16)
        crew.go()
        ours = _with_threads(table, 2 << 16)
        added = ours + sum(crew.results())
    assert added == 3 * THREADS * ADDS
    stats = table.stats()
    assert stats.sequences_added == added
    assert stats.writing_transitions == 0 and stats.recoveries == 0
    assert stats.sequences_added - stats.sequences_removed == stats.sequences
    for identity in table.identities().tolist():
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_children_forked_while_threads_are_at_work(make_table, lock: str) -> None:
    table = make_table(
        columns=content.columns(), maxlen=400, ejector=UniformEjectionStrategy(), lock=lock
    )
    stop = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        threads: list[Future[int]] = [
            pool.submit(_add_and_sample, table, thread << 20, stop) for thread in range(3)
        ]
        try:
            with Crew("fork") as crew:
                for number in range(3, 8):
                    crew.add(_add_and_sample, table, number << 20, None)
                crew.go()
                children = crew.results()
        finally:
            stop.set()
    assert children == [ADDS] * 5
    added = sum(thread.result() for thread in threads) + sum(children)
    stats = table.stats()
    assert stats.sequences_added == added
    assert stats.writing_transitions == 0 and stats.recoveries == 0
    for identity in table.identities().tolist():
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []
