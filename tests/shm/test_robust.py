"""What only the robust mutex has: orphans told, and a C library to be handled with care."""

from __future__ import annotations

import errno
import gc
import os
import sys
import threading
from collections.abc import Callable

import pytest

from shmtable.errors import ArenaDamagedError, SpecError
from shmtable.shm import clib, header, lock
from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from shmtable.shm.lock import Mutex, RobustMutex, Status, make_mutex
from tests.multiprocess.recipe import Crew
from tests.shm.helpers import small_plan, wait_until
from tests.shm.test_lock import in_thread


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
