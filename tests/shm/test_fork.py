"""Critical sections of threads, around a fork."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from shmtable.shm import guard as guards
from shmtable.shm import header, process
from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from shmtable.shm.lock import Status, make_mutex
from tests.shm.helpers import (
    count_up,
    counting_guard,
)


@pytest.fixture
def arena(make_arena: Callable[..., Arena], lock_kind: str) -> Arena:
    return make_arena(lock=lock_kind)


@pytest.fixture
def guard(arena: Arena) -> Guard:
    return counting_guard(arena)


def is_free(arena: Arena, which: str = "table") -> bool:
    """Whether another thread gets the lock at once."""
    answers: list[Status] = []

    def ask() -> None:
        mutex = make_mutex(arena, which)
        answers.append(mutex.try_acquire())
        mutex.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(30)
    return answers == [Status.ACQUIRED]


def child_says(body: Callable[[], object]) -> int:
    """Run something in a forked child; its exit code, 99 for an exception."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = int(bool(body()))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_no_thread_is_inside_a_section_during_a_fork(guard: Guard, arena: Arena) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            guard.run(count_up, arena.words)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            # What the child has of Python objects was copied between two sections.
            assert child_says(partial(check_child, guard, arena)) == 0
    finally:
        stop.set()
        thread.join(30)
    assert is_free(arena)


def check_child(guard: Guard, arena: Arena) -> bool:
    guard.run(count_up, arena.words, timeout_s=20)
    return False


def test_a_fork_waits_for_a_section_of_another_thread(guard: Guard) -> None:
    inside, done = threading.Event(), []

    def section() -> None:
        inside.set()
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass
        done.append(1)

    thread = threading.Thread(target=guard.run, args=(section,))
    thread.start()
    assert inside.wait(30)
    assert child_says(lambda: len(done)) == 1
    thread.join(30)


def test_a_fork_from_inside_a_section_leaves_it_alone(guard: Guard, arena: Arena) -> None:
    def section() -> tuple[int, bool]:
        return child_says(int), is_free(arena)

    assert guard.run(section) == (0, False)
    assert is_free(arena)


def test_a_fork_does_not_wait_long_for_others(
    guard: Guard, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "FORK_WAIT_S", 0.05)
    held, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=guard.run, args=(lambda: (held.set(), go_on.wait(60)),))
    thread.start()
    assert held.wait(30)
    assert child_says(int) == 0
    assert not is_free(arena)
    go_on.set()
    thread.join(30)


class Interrupt:
    """Comes beside every fork, once: among what runs after it in the parent, or in the child."""

    def __init__(self, where: str) -> None:
        self.came = False
        if where == "parent":
            process.around_fork(self._stay_away, self._come)
        else:
            process.after_fork(self._come)

    def _stay_away(self) -> None:
        pass

    def _come(self) -> None:
        if not self.came:
            self.came = True
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("where", ["parent", "child"])
def test_an_interrupt_beside_a_fork_leaves_nothing_undone(arena: Arena, where: str) -> None:
    def fork() -> bool:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt = Interrupt(where)  # before what the guard does
        guard = counting_guard(arena)

        def renewed() -> bool:
            return guard.run(noted_pid, arena) == os.getpid() and interrupt.came == (
                where == "child"
            )

        return child_says(renewed) == 1 and is_free(arena) and interrupt.came == (where == "parent")

    # In a process of its own: Python tells of such interrupts and goes on, but pytest would fail.
    assert child_says(fork) == 1


def noted_pid(arena: Arena) -> int:
    return arena.words[header.LOCKS["table"].note_pid]
