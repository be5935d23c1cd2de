"""Critical sections: repair, re-entry, time limits, killed and stopped holders."""

from __future__ import annotations

import errno
import gc
import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from shmtable.errors import LockReentryError, LockTimeoutError
from shmtable.shm import header, process
from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from shmtable.shm.lock import Status, make_mutex
from tests.multiprocess.recipe import Crew, link
from tests.shm.helpers import (
    FIRST,
    REPAIRS,
    SECOND,
    Parcel,
    count_for_ever,
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


def test_it_runs_the_body_under_the_lock(guard: Guard, arena: Arena) -> None:
    assert guard.run(lambda a, b: (a + b, is_free(arena)), 2, 3) == (5, False)
    assert is_free(arena)


def test_both_locks(arena: Arena) -> None:
    table, grow = Guard(arena, "table", int), Guard(arena, "grow", int)
    assert grow.run(lambda: (is_free(arena), is_free(arena, "grow"), table.run(int))) == (
        True,
        False,
        0,
    )


def test_a_body_that_raises_lets_go(guard: Guard, arena: Arena) -> None:
    with pytest.raises(ZeroDivisionError):
        guard.run(lambda: 1 // 0)
    assert is_free(arena)
    assert arena.words[REPAIRS] == 0  # nothing was begun


def test_what_a_body_left_half_done_is_repaired_first(guard: Guard, arena: Arena) -> None:
    words = arena.words

    def torn() -> None:
        words[header.DIRTY] = 1
        words[FIRST] += 1
        raise KeyError

    with pytest.raises(KeyError):
        guard.run(torn)
    assert words[REPAIRS] == 0 and words[header.DIRTY]
    assert guard.run(lambda: (words[FIRST], words[SECOND], words[REPAIRS])) == (1, 1, 1)


def test_a_repair_that_fails_is_tried_again(arena: Arena) -> None:
    tries = []

    def repair() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise MemoryError
        arena.words[header.DIRTY] = 0

    guard = Guard(arena, "table", repair)
    arena.words[header.DIRTY] = 1
    for _ in range(2):
        with pytest.raises(MemoryError):
            guard.run(pytest.fail)
        assert is_free(arena)
    assert guard.run(int) == 0 and len(tries) == 3


def test_each_lock_has_its_own_dirty_word(arena: Arena) -> None:
    repaired: list[str] = []
    for which, word in (("table", header.DIRTY), ("grow", header.GROW_DIRTY)):

        def repair(which: str = which, word: int = word) -> None:
            repaired.append(which)
            arena.words[word] = 0

        arena.words[word] = 1
        Guard(arena, which, repair).run(int)
    assert repaired == ["table", "grow"]


# -- re-entry ------------------------------------------------------------------------------------


def test_reentry_is_refused_and_disturbs_nothing(guard: Guard, arena: Arena) -> None:
    def section(again: Guard) -> bool:
        with pytest.raises(LockReentryError, match="held by this very call further up; a strategy"):
            again.run(pytest.fail)
        return is_free(arena)

    assert guard.run(section, guard) is False
    assert guard.run(section, Guard(arena, "table", int)) is False  # another guard, same lock
    assert is_free(arena)
    assert arena.words[REPAIRS] == 0


def test_reentry_from_a_signal_handler(guard: Guard, arena: Arena) -> None:
    seen: list[object] = []

    def handler(*_: object) -> None:
        try:
            seen.append(guard.run(int))
        except LockReentryError:
            seen.append("refused")

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        guard.run(lambda: (os.kill(os.getpid(), signal.SIGUSR1), is_free(arena)))
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert seen == ["refused", 0]


def test_reentry_by_another_thread_is_none(guard: Guard) -> None:
    def section() -> list[object]:
        found: list[object] = []

        def other() -> None:
            try:
                guard.run(int, timeout_s=0.05)
            except BaseException as error:
                found.append(type(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
        return found

    assert guard.run(section) == [LockTimeoutError]


def test_an_orphan_is_adopted_and_repaired(guard: Guard, arena: Arena) -> None:
    # As after an interrupt that no `finally` could catch.
    arena.words[FIRST] = 5
    assert make_mutex(arena, "table").try_acquire() is Status.ACQUIRED
    assert not is_free(arena)
    assert guard.run(lambda: (arena.words[SECOND], arena.words[REPAIRS])) == (5, 1)
    assert is_free(arena)


# -- time limits ---------------------------------------------------------------------------------


def test_a_time_limit_names_the_holder(guard: Guard, arena: Arena) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(30)

    thread = threading.Thread(target=guard.run, args=(hold,))
    thread.start()
    assert held.wait(30)
    began = time.monotonic()
    with pytest.raises(LockTimeoutError) as info:
        guard.run(pytest.fail, timeout_s=0.25)
    assert 0.25 <= time.monotonic() - began < 20
    error, text = info.value, str(info.value)
    assert (error.pid, error.tid) == (os.getpid(), thread.native_id)
    assert error.held_s >= error.waited_s >= 0.25
    assert f"held by process {os.getpid()} (" in text and "waited 0.25" in text
    assert text.endswith("continue or end that process, or raise timeout_s")
    assert isinstance(error, TimeoutError)
    go_on.set()
    thread.join(30)
    assert guard.run(int, timeout_s=None) == 0


def test_a_lock_that_is_soon_free_costs_no_sleep(
    guard: Guard, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard._tries = 10
    take, asked = guard._try, []

    def refuse_at_first(token: object) -> int:
        asked.append(token)
        return errno.EBUSY if len(asked) < 4 else take(token)

    guard._try = refuse_at_first
    monkeypatch.setattr(guard._mutex, "acquire", lambda _: pytest.fail("it went to sleep"))
    waits = arena.words[header.TABLE_WAITS]
    assert guard.run(lambda: "ran") == "ran"
    assert len(asked) == 4
    assert arena.words[header.TABLE_WAITS] == waits + 1
    assert guard.run(lambda: "again", timeout_s=0.0) == "again", "and was let go"


def pin(parcel: Parcel) -> list[int]:
    before = process.processors()
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    return [before, process.processors(), counting_guard(parcel.arena)._tries]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_whoever_is_pinned_to_one_processor_never_spins(arena: Arena) -> None:
    allowed = len(os.sched_getaffinity(0))
    with Crew("fork") as crew:
        crew.add(pin, Parcel(arena))
        crew.go()
        assert crew.results() == [[allowed, 1, 0]]


def test_no_time_at_all_still_takes_a_free_lock(guard: Guard) -> None:
    assert guard.run(int, timeout_s=0.0) == 0


def stop_inside(parcel: Parcel) -> int:
    guard = counting_guard(parcel.arena)

    def section() -> None:
        parcel.arena.words[header.DIRTY] = 1
        link().tell(os.getpid())
        link().hear()
        parcel.arena.words[header.DIRTY] = 0

    guard.run(section)
    return 5


def test_a_stopped_holder_is_named_and_can_go_on(guard: Guard, arena: Arena) -> None:
    with Crew("fork") as crew:
        member = crew.add(stop_inside, Parcel(arena))
        crew.go()
        pid = member.hear()
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(LockTimeoutError) as info:
                guard.run(pytest.fail, timeout_s=0.2)
            assert info.value.pid == pid
            assert "python" in info.value.command and f"process {pid} (" in str(info.value)
            assert not is_free(arena)
        finally:
            os.kill(pid, signal.SIGCONT)
        member.tell("go on")
        assert crew.results() == [5]
    assert guard.run(lambda: arena.words[REPAIRS]) == 0


def test_a_waiting_section_gets_the_lock_when_it_is_free(guard: Guard, arena: Arena) -> None:
    with Crew("fork") as crew:
        member = crew.add(stop_inside, Parcel(arena))
        crew.go()
        member.hear()
        threading.Timer(0.15, member.tell, ("go on",)).start()
        assert guard.run(lambda: arena.words[REPAIRS], timeout_s=60) == 0
        crew.results()


# -- killed holders ------------------------------------------------------------------------------


def die_inside(parcel: Parcel) -> None:
    def section() -> None:
        parcel.arena.words[header.DIRTY] = 1
        parcel.arena.words[FIRST] += 1
        link().tell("inside")
        link().hear()

    counting_guard(parcel.arena).run(section)


def test_after_a_kill_inside_the_next_one_repairs(guard: Guard, arena: Arena) -> None:
    for number in range(1, 6):
        with Crew("fork") as crew:
            member = crew.add(die_inside, Parcel(arena))
            crew.go()
            member.hear()
            member.kill()
            crew.results()
        words = arena.words
        assert guard.run(lambda w: (w[FIRST], w[SECOND], w[REPAIRS]), words, timeout_s=30) == (
            number,
            number,
            number,
        )


def test_kills_at_random_moments_stall_nobody(guard: Guard, arena: Arena) -> None:
    rng = random.Random(3)
    words = arena.words
    for _ in range(15):
        with Crew("fork") as crew:
            members = [crew.add(count_for_ever, Parcel(arena)) for _ in range(2)]
            crew.go()
            for member in members:
                member.hear()
            for member in members:
                for _ in range(rng.randrange(200)):
                    guard.run(count_up, words, timeout_s=30)
                member.kill()
            crew.results()
        before = words[FIRST]
        guard.run(count_up, words, timeout_s=30)
        assert words[FIRST] == words[SECOND] == before + 1 or words[REPAIRS]
    assert guard.run(lambda: words[FIRST] - words[SECOND]) == 0


def test_guards_do_not_refer_to_themselves(arena: Arena) -> None:
    gc.disable()
    try:
        guard = Guard(arena, "table", int)
        guard.run(int)
        dead = weakref.ref(guard)
        del guard
        assert dead() is None
    finally:
        gc.enable()


def test_the_cost_of_a_section_is_a_few_locks(make_arena: Callable[..., Arena]) -> None:
    guard = counting_guard(make_arena(lock="robust"))

    def best(act: Callable[[], object]) -> float:
        rounds, times = 2000, []
        for _ in range(15):
            began = time.perf_counter()
            for _ in range(rounds):
                act()
            times.append(time.perf_counter() - began)
        return min(times)

    take, give, token = guard._try, guard._release, guard._token
    bare = best(lambda: (take(token), give(token)))
    empty = best(lambda: None)
    assert best(lambda: guard.run(int)) - empty < 8 * (bare - empty)
