"""A sample that lacks windows does not wait for an add that waits for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from shmtable import (
    ArrayMemoryTable,
    FifoSampleStrategy,
    NoWindowError,
    Queue,
    RateLimitedError,
    SampleToInsertRatio,
)
from tests.protocols.test_pace import add, adds_admitted

MakeTable = Callable[..., ArrayMemoryTable]
LONG_S = 60.0


def test_a_queue_ejects_nothing(make_table: MakeTable) -> None:
    table = make_table(maxlen=30, limiter=Queue(10), sampler=FifoSampleStrategy())
    add(table, 0, 10, 10)
    assert table.can_insert(10) and not table.can_insert(11)
    with pytest.raises(RateLimitedError, match="leave room for 10 transitions, 11 are to be added"):
        add(table, 2, 11)
    add(table, 2, 10)
    assert adds_admitted(table, 3, 1) == 0
    assert table.stats().sequences_removed == 0
    # All the room is taken by two fewer than are asked for: nobody would ever go on.
    with pytest.raises(NoWindowError, match="3 of the 5 windows.*add_sequence waits as well"):
        table.sample(5, 2, timeout_s=LONG_S)


def test_a_queue_of_sequences_that_are_too_short(make_table: MakeTable) -> None:
    table = make_table(limiter=Queue(3), sampler=FifoSampleStrategy())
    add(table, 0, 3, 9)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(table.sample, 2, 5, timeout_s=LONG_S)
        add(table, 2, 3)
        with pytest.raises(RateLimitedError):
            add(table, 3, 9, timeout_s=0.1)
        with pytest.raises(NoWindowError, match="2 of 3 sequences are shorter than 5"):
            waiting.result(LONG_S)
    assert table.sample(1, 5).points.identities.tolist() == [1]  # type: ignore[union-attr]


def test_long_windows_are_not_waited_for_where_adds_wait(make_table: MakeTable) -> None:
    table = make_table(limiter=SampleToInsertRatio(1.0, 5, 10))
    add(table, 0, 3, 3, 3)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(table.sample, 2, 5, timeout_s=LONG_S)
        add(table, 3, 3, 3)  # the band is full
        with pytest.raises(RateLimitedError):
            add(table, 5, 5, timeout_s=0.1)
        with pytest.raises(NoWindowError, match="add_sequence waits as well"):
            waiting.result(LONG_S)


def test_an_add_that_waited_and_was_let_in_stops_no_sample(make_table: MakeTable) -> None:
    table = make_table(maxlen=40, limiter=Queue(9), sampler=FifoSampleStrategy())
    add(table, 0, 10, 10)
    with pytest.raises(RateLimitedError, match="room for 20 transitions, 21 are to be added"):
        add(table, 2, 21)
    with ThreadPoolExecutor(1) as pool:
        add(table, 3, 5)
        waiting = pool.submit(table.sample, 4, 5, timeout_s=LONG_S)
        add(table, 4, 5)
        waiting.result(LONG_S)
