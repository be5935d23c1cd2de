"""Both kinds of lock: one set of rules."""

from __future__ import annotations

import errno
import gc
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest

from shmtable.errors import ArenaDamagedError, SpecError
from shmtable.shm import clib, header, lock
from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from shmtable.shm.lock import Mutex, RobustMutex, Status, make_mutex
from shmtable.shm.mutex import SLICE_S
from tests.multiprocess.recipe import Crew, link
from tests.shm.helpers import Parcel, small_plan, wait_until


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


# -- the robust one ------------------------------------------------------------------------------


@pytest.fixture
def robust(make_arena: Callable[..., Arena]) -> tuple[Arena, RobustMutex]:
    arena = make_arena(lock="robust")
    mutex = make_mutex(arena, "table")
    assert isinstance(mutex, RobustMutex)
    return arena, mutex


def orphan(mutex: Mutex) -> None:
    """Let a thread end while it holds the lock."""
    threads: list[int] = []

    def hold() -> Status:
        threads.append(threading.get_native_id())
        return mutex.try_acquire()

    assert in_thread(hold) is Status.ACQUIRED
    # Python counts a thread as ended a moment before the kernel does.
    wait_until(lambda: not os.path.exists(f"/proc/self/task/{threads[0]}"))


def test_a_thread_that_ended_with_it(robust: tuple[Arena, RobustMutex]) -> None:
    _, mutex = robust
    for ask in (mutex.try_acquire, lambda: mutex.acquire(0.5)):
        orphan(mutex)
        assert ask() is Status.OWNER_DIED
        mutex.release()
        assert mutex.try_acquire() is Status.ACQUIRED
        mutex.release()


def test_an_interrupt_before_it_was_made_consistent(robust: tuple[Arena, RobustMutex]) -> None:
    # As it stands when Ctrl-C comes right behind the C call: unlocking now would ruin it.
    _, mutex = robust
    orphan(mutex)
    assert mutex.quick_try(mutex.token) == errno.EOWNERDEAD
    mutex.settle()
    assert mutex.try_acquire() is Status.ACQUIRED
    mutex.release()
    orphan(mutex)
    assert mutex.quick_try(mutex.token) == errno.EOWNERDEAD
    assert mutex.adopt() is Status.OWNER_DIED
    mutex.release()
    assert mutex.try_acquire() is Status.ACQUIRED
    mutex.release()


def unmap_what_is_held(by_another_thread: bool) -> None:
    arena = Arena.create(small_plan, lock="robust")
    below = Arena.create(small_plan)  # bounds the gap that the first one will leave
    mutex = make_mutex(arena, "table")
    if by_another_thread:
        stop, ready = threading.Event(), threading.Event()

        def work() -> None:
            asks.pop()()
            ready.set()
            stop.wait(30)
            use_another_lock()

        asks = [mutex.try_acquire]
        arena.words[header.TABLE_NOTE_PID] = os.getpid()
        thread = threading.Thread(target=work)
        thread.start()
        assert ready.wait(30)
    else:
        mutex.try_acquire()
    arena.close()
    del arena, mutex
    gc.collect()
    if by_another_thread:
        stop.set()
        thread.join(30)
    use_another_lock()
    below.close()


def use_another_lock() -> None:
    # Larger than the gap, or it would be mapped into it and no harm be seen.
    arena = Arena.create(lambda factor: (1 << 30, {}), lock="robust")
    mutex = make_mutex(arena, "table")
    for _ in range(3):
        mutex.try_acquire()
        mutex.release()
    arena.close()


@pytest.mark.parametrize("by_another_thread", [False, True])
def test_a_held_mutex_is_not_unmapped_under_its_holder(by_another_thread: bool) -> None:
    # Otherwise the holder's next lock, of whatever table, is a segmentation fault.
    with Crew("fork") as crew:
        crew.add(unmap_what_is_held, by_another_thread)
        crew.go()
        crew.results()


def test_a_ruined_mutex_is_told(robust: tuple[Arena, RobustMutex]) -> None:
    arena, mutex = robust
    orphan(mutex)
    assert mutex.quick_try(mutex.token) == errno.EOWNERDEAD
    mutex.quick_release(mutex.token)  # without making it consistent
    for _ in range(3):
        with pytest.raises(ArenaDamagedError, match="answers ENOTRECOVERABLE.*create the table"):
            mutex.try_acquire()
        mutex.settle()
    arena.words[header.DIRTY] = 1
    for _ in range(3):
        with pytest.raises(ArenaDamagedError, match="answers ENOTRECOVERABLE"):
            Guard(arena, "table", int).run(pytest.fail)


def test_without_clocklock_it_asks_again_and_again(
    robust: tuple[Arena, RobustMutex], monkeypatch: pytest.MonkeyPatch
) -> None:
    arena, _ = robust
    real = clib.function
    monkeypatch.setattr(
        clib,
        "function",
        lambda name, *types, **options: (
            None if name == "pthread_mutex_clocklock" else real(name, *types, **options)
        ),
    )
    mutex = make_mutex(arena, "table")
    assert mutex.acquire(0.1) is Status.ACQUIRED
    assert in_thread(lambda: mutex.acquire(0.05)) is Status.BUSY
    mutex.release()
    assert in_thread(lambda: mutex.acquire(0.05)) is Status.ACQUIRED
    assert mutex.acquire(0.1) is Status.OWNER_DIED
    mutex.release()


def test_a_missing_robust_mutex_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    lock.robust_available.cache_clear()
    try:
        assert not lock.robust_available()
        with pytest.raises(SpecError, match="does not have; pass lock='portable'"):
            lock.check_kind("robust")
        lock.check_kind("portable")
    finally:
        monkeypatch.undo()
        lock.robust_available.cache_clear()
    assert lock.robust_available()
