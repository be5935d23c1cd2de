"""Interrupts at any moment never leave the lock held."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from shmtable.shm.lock import Status, make_mutex
from tests.interrupts import let_alarms_interrupt
from tests.multiprocess.recipe import Crew, link
from tests.shm.helpers import (
    FIRST,
    SECOND,
    Parcel,
    count_for_ever,
    count_up,
    counting_guard,
    small_plan,
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


def storm(parcel: Parcel, rounds: int) -> tuple[int, int, int]:
    """Interrupt sections once a round at a random moment; count what was left held."""
    arena, rng = parcel.arena, random.Random(1)
    guard, words = counting_guard(arena), arena.words
    mutex = make_mutex(arena, "table")
    let_alarms_interrupt()
    interrupts = orphans = 0
    for _ in range(rounds):
        try:
            # Mostly so soon that it comes while the first sections run.
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-6, 60e-6))
            while True:
                guard.run(count_up, words)
        except KeyboardInterrupt:
            interrupts += 1
        if mutex.try_acquire() is Status.DEADLOCK:
            orphans += 1
        mutex.release()
    return interrupts, orphans, guard.run(lambda: words[FIRST] - words[SECOND])


@pytest.mark.parametrize("rival", [False, True])
def test_a_storm_of_interrupts_never_leaves_the_lock_held(arena: Arena, rival: bool) -> None:
    rounds = 3000
    with Crew("fork") as crew:
        stormy = crew.add(storm, Parcel(arena), rounds)
        other = crew.add(count_for_ever, Parcel(arena)) if rival else None
        crew.go()
        stormy.join()
        if other is not None:
            other.kill()
            other.join()
        interrupts, orphans, torn = stormy.result
    assert (interrupts, orphans, torn) == (rounds, 0, 0)


def storm_of_threads(parcel: Parcel, enough: int) -> tuple[int, int]:
    """Exceptions thrown into a thread from outside, several in a row."""
    guard, words = counting_guard(parcel.arena), parcel.arena.words
    stop, caught = threading.Event(), [0]

    def work() -> None:
        while not stop.is_set():
            try:
                try:
                    while not stop.is_set():
                        guard.run(count_up, words)
                except KeyboardInterrupt:
                    caught[0] += 1
            except KeyboardInterrupt:
                pass

    def survive() -> None:
        while not stop.is_set():
            try:
                work()
            except KeyboardInterrupt:
                pass

    thread = threading.Thread(target=survive)
    thread.start()
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
    until = time.monotonic() + 60
    while caught[0] < enough and time.monotonic() < until:
        for _ in range(10):
            throw(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt))
            time.sleep(0)  # let it run, and be hit somewhere
        guard.run(count_up, words, timeout_s=30)  # the lock is never kept from us
    stop.set()
    thread.join(30)
    return caught[0], guard.run(lambda: words[FIRST] - words[SECOND])


def test_exceptions_thrown_into_a_thread(arena: Arena) -> None:
    with Crew("fork") as crew:
        crew.add(storm_of_threads, Parcel(arena), 300)
        crew.go()
        ((caught, torn),) = crew.results()
    assert caught >= 300 and torn == 0


def wait_for_ctrl_c(lock_kind: str) -> float:
    arena = Arena.create(small_plan, lock=lock_kind)
    guard, held = counting_guard(arena), threading.Event()
    never = threading.Event()

    def hold() -> None:
        held.set()
        never.wait()

    threading.Thread(target=guard.run, args=(hold,), daemon=True).start()
    held.wait(30)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        link().tell("waiting")
        guard.run(int, timeout_s=100)
    except KeyboardInterrupt:
        return time.monotonic()
    finally:
        never.set()
    raise AssertionError("never interrupted")


def test_ctrl_c_is_answered_while_waiting(lock_kind: str) -> None:
    with Crew("fork") as crew:
        member = crew.add(wait_for_ctrl_c, lock_kind)
        crew.go()
        assert member.hear() == "waiting"
        began = time.monotonic()
        os.kill(member.pid, signal.SIGINT)
        (answered,) = crew.results()
    assert answered - began < 20
