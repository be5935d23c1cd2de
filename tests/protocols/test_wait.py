"""Waiting that is called off from another thread."""

from __future__ import annotations

import threading

import pytest

from shmtable import FifoSampleStrategy, Queue, WaitTimeoutError
from shmtable.protocols.wait import WaitStoppedError, stoppable
from shmtable.shm.guard import is_inside_any
from tests.tables import small_sequence


def test_a_waiting_sample_is_called_off(make_table) -> None:
    table = make_table()
    stop, outcome = threading.Event(), []

    def wait() -> None:
        with stoppable(stop.is_set):
            try:
                table.sample(1, 1, timeout_s=None)
            except WaitStoppedError as error:
                outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    stop.set()
    thread.join()
    assert len(outcome) == 1


def test_a_waiting_add_is_called_off(make_table) -> None:
    table = make_table(limiter=Queue(1), sampler=FifoSampleStrategy())
    table.add_sequence(1, small_sequence(1, 5))
    stop = threading.Event()
    stop.set()
    with stoppable(stop.is_set), pytest.raises(WaitStoppedError):
        table.add_sequence(2, small_sequence(2, 5), timeout_s=None)
    assert table.identities().tolist() == [1]


def test_only_the_threads_own_waiting_is_called_off_and_only_within(make_table) -> None:
    table = make_table()
    stop = threading.Event()
    stop.set()
    with stoppable(stop.is_set):
        pass
    with pytest.raises(WaitTimeoutError, match="waited 0.01 s"):
        table.sample(1, 1, timeout_s=0.01)
    table.add_sequence(1, small_sequence(1, 5))
    with stoppable(stop.is_set):
        assert len(table.sample(1, 1, timeout_s=None).points) == 1  # nothing to wait for


def test_a_thread_knows_whether_it_is_inside_a_section(make_table) -> None:
    guard = make_table()._core.guard
    assert not is_inside_any()
    assert guard.run(is_inside_any)
    assert guard.run(lambda: (lambda: is_inside_any())())
    assert not is_inside_any()
