"""Both kinds of lock: one set of rules."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from shmtable.shm.arena import Arena
from shmtable.shm.lock import Mutex, Status, make_mutex
from shmtable.shm.mutex import SLICE_S
from tests.multiprocess.recipe import Crew, link
from tests.shm.helpers import Parcel


@pytest.fixture
def arena(make_arena: Callable[..., Arena], lock_kind: str) -> Arena:
    return make_arena(lock=lock_kind)


@pytest.fixture
def mutex(arena: Arena) -> Mutex:
    return make_mutex(arena, "table")


def in_thread(ask: Callable[[], Status]) -> Status:
    """What another thread is told; it ends without letting go."""
    answers: list[Status] = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    thread.join(30)
    return answers[0]


def hold_in_thread(mutex: Mutex) -> Callable[[], None]:
    """Let another thread hold the lock until the function returned is called."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        mutex.try_acquire()
        held.set()
        go_on.wait(60)
        mutex.release()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)

    def let_go() -> None:
        go_on.set()
        thread.join(30)

    return let_go


def test_try_and_release(mutex: Mutex) -> None:
    for _ in range(3):
        assert mutex.try_acquire() is Status.ACQUIRED
        mutex.release()


def test_asking_twice_is_told(mutex: Mutex) -> None:
    assert mutex.acquire(0.1) is Status.ACQUIRED
    assert mutex.try_acquire() is Status.DEADLOCK
    assert mutex.acquire(0.1) is Status.DEADLOCK
    mutex.release()
    assert mutex.try_acquire() is Status.ACQUIRED
    mutex.release()


def test_threads_exclude_each_other(mutex: Mutex, arena: Arena) -> None:
    other = make_mutex(arena, "table")
    assert mutex.try_acquire() is Status.ACQUIRED
    for asked in (mutex, other):
        assert in_thread(asked.try_acquire) is Status.BUSY
        assert in_thread(lambda asked=asked: asked.acquire(0.01)) is Status.BUSY
    mutex.release()


def test_only_the_holder_can_release(mutex: Mutex) -> None:
    assert mutex.try_acquire() is Status.ACQUIRED
    for letting_go in (mutex.release, mutex.settle):
        thread = threading.Thread(target=letting_go)
        thread.start()
        thread.join(30)
        assert in_thread(mutex.try_acquire) is Status.BUSY
    mutex.release()
    mutex.release()  # not held: harmless
    assert mutex.try_acquire() is Status.ACQUIRED
    mutex.release()


def test_the_two_locks_of_an_arena_are_independent(arena: Arena) -> None:
    table, grow = make_mutex(arena, "table"), make_mutex(arena, "grow")
    assert table.try_acquire() is Status.ACQUIRED
    assert grow.try_acquire() is Status.ACQUIRED
    table.release()
    assert grow.try_acquire() is Status.DEADLOCK
    grow.release()
    assert table.try_acquire() is Status.ACQUIRED
    child = os.fork()
    if child == 0:
        answers = table.try_acquire(), grow.try_acquire()
        os._exit(0 if answers == (Status.BUSY, Status.ACQUIRED) else 1)
    assert os.waitpid(child, 0)[1] == 0
    table.release()


def test_waiting_takes_one_slice_at_most(mutex: Mutex) -> None:
    assert mutex.try_acquire() is Status.ACQUIRED
    took: list[float] = []

    def wait() -> Status:
        began = time.monotonic()
        status = mutex.acquire(100.0)
        took.append(time.monotonic() - began)
        return status

    assert in_thread(wait) is Status.BUSY
    assert SLICE_S * 0.9 <= took[0] < 10
    mutex.release()


def test_waiting_lets_other_threads_run(mutex: Mutex) -> None:
    # In here everything that is not the waiting thread goes on: the holder could let go.
    let_go, stop, steps = hold_in_thread(mutex), threading.Event(), [0]

    def work() -> None:
        while not stop.is_set():
            steps[0] += 1

    thread = threading.Thread(target=work)

    def steps_during(act: Callable[[], object]) -> int:
        before = steps[0]
        act()
        return steps[0] - before

    thread.start()
    asleep = min(steps_during(lambda: time.sleep(0.1)) for _ in range(3))
    waiting = max(steps_during(lambda: mutex.acquire(0.1)) for _ in range(3))
    stop.set()
    thread.join(30)
    let_go()
    assert waiting > asleep / 4


def ask(parcels: list[Parcel]) -> list[str]:
    mutexes = [make_mutex(parcel.arena, "table") for parcel in parcels]
    answers = [mutex.try_acquire().value for mutex in mutexes]
    link().tell(answers)
    link().hear()
    answers = [mutex.acquire(1.0).value for mutex in mutexes]
    for mutex in mutexes:
        mutex.release()
    return answers


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_exclude_each_other(make_arena: Callable[..., Arena], method: str) -> None:
    arenas = [make_arena(lock=kind) for kind in ("robust", "portable")]
    mutexes = [make_mutex(arena, "table") for arena in arenas]
    with Crew(method) as crew:
        member = crew.add(ask, [Parcel(arena) for arena in arenas])
        for mutex in mutexes:
            assert mutex.try_acquire() is Status.ACQUIRED
        crew.go()
        assert member.hear() == ["busy", "busy"]
        for mutex in mutexes:
            mutex.release()
        member.tell("freed")
        assert crew.results() == [["acquired", "acquired"]]


def test_a_forked_child_does_not_inherit_the_lock(mutex: Mutex) -> None:
    # os.fork by the holder itself, and by another thread than the holder.
    assert mutex.try_acquire() is Status.ACQUIRED
    child = os.fork()
    if child == 0:
        status = 9
        try:
            first = mutex.try_acquire()
            mutex.release()  # harmless: the parent's
            status = 0 if (first, mutex.try_acquire()) == (Status.BUSY, Status.BUSY) else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert mutex.try_acquire() is Status.DEADLOCK  # still ours
    mutex.release()


def hold_until_killed(parcel: Parcel) -> None:
    make_mutex(parcel.arena, "table").try_acquire()
    link().tell("held")
    link().hear()


def test_the_lock_of_a_killed_process_comes_free(mutex: Mutex, arena: Arena) -> None:
    with Crew("fork") as crew:
        member = crew.add(hold_until_killed, Parcel(arena))
        crew.go()
        assert member.hear() == "held"
        assert mutex.acquire(0.05) is Status.BUSY
        member.kill()
        crew.results()
    robust = arena.lock_kind == "robust"
    assert mutex.acquire(1.0) is (Status.OWNER_DIED if robust else Status.ACQUIRED)
    mutex.release()
    assert mutex.try_acquire() is Status.ACQUIRED
    mutex.release()


def test_a_child_does_not_keep_a_killed_parents_lock(arena: Arena, mutex: Mutex) -> None:
    # The child inherits the descriptor; a lock of the open file would live on in it.
    reader, writer = os.pipe()
    holder = os.fork()
    if holder == 0:
        mutex.try_acquire()
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)  # until the test closes its end
            os._exit(0)
        os.kill(os.getpid(), 9)
    os.waitpid(holder, 0)
    status = mutex.acquire(1.0)
    os.close(writer)
    os.close(reader)
    assert status in (Status.OWNER_DIED, Status.ACQUIRED)
    mutex.release()


def test_settle_lets_go_whatever_happened(mutex: Mutex) -> None:
    mutex.settle()
    assert mutex.try_acquire() is Status.ACQUIRED
    mutex.settle()
    assert in_thread(mutex.try_acquire) is Status.ACQUIRED


def test_adopting_an_orphan(mutex: Mutex) -> None:
    assert mutex.try_acquire() is Status.ACQUIRED
    assert mutex.try_acquire() is Status.DEADLOCK
    assert mutex.adopt() is Status.OWNER_DIED
    mutex.release()
    assert mutex.try_acquire() is Status.ACQUIRED
    mutex.release()
