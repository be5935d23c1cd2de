"""The bell: waiters wake when it rings, when it has rung already, and when nobody rings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from shmtable.errors import SpecError
from shmtable.shm import futex, header
from shmtable.shm.arena import Arena
from shmtable.shm.futex import Bell
from tests.multiprocess.recipe import Crew, link
from tests.shm.helpers import Parcel, counting_guard


@pytest.fixture(params=["futex", "poll"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def arena(make_arena: Callable[..., Arena]) -> Arena:
    return make_arena()


def timed(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def test_ringing_changes_the_word(arena: Arena, kind: str) -> None:
    bell = Bell(arena, kind)
    seen = bell.seen_locked()
    bell.ring_locked()
    assert bell.seen_locked() != seen
    assert timed(lambda: bell.wait(seen, 30.0)) < 0.4


def test_the_word_wraps(arena: Arena, kind: str) -> None:
    bell = Bell(arena, kind)
    arena.words[header.BELL] = 0xFFFFFFFF
    seen = bell.seen_locked()
    assert seen == 0xFFFFFFFF
    bell.ring_locked()
    assert bell.seen_locked() == 0


def test_the_hint_tells_whether_anybody_needs_to_be_woken(arena: Arena) -> None:
    bell = Bell(arena)
    bell.ring_locked()
    assert not bell.rung
    bell.seen_locked()
    bell.ring_locked()
    assert bell.rung
    bell.wake()
    assert not bell.rung
    bell.ring_locked()
    assert not bell.rung


def test_neighbouring_words_are_left_alone(arena: Arena) -> None:
    bell = Bell(arena)
    before = list(arena.words)
    bell.seen_locked()
    bell.ring_locked()
    changed = [word for word, value in enumerate(arena.words) if value != before[word]]
    assert changed == [header.BELL]


def test_a_wait_ends_by_itself(arena: Arena, kind: str) -> None:
    bell = Bell(arena, kind)
    seen = bell.seen_locked()
    for timeout_s, least in ((0.0, 0.0), (-1.0, 0.0), (0.05, 0.05), (1000.0, futex.LONGEST_S)):
        assert least * 0.99 <= timed(lambda t=timeout_s: bell.wait(seen, t)) < least + 5


def listen(parcel: Parcel, kind: str, rounds: int) -> list[float]:
    bell = Bell(parcel.arena, kind)
    guard = counting_guard(parcel.arena)
    took = []
    for _ in range(rounds):
        seen = guard.run(bell.seen_locked)
        link().tell("listening")
        began = time.monotonic()
        bell.wait(seen, 30.0)
        took.append(time.monotonic() - began)
        if guard.run(bell.seen_locked) == seen:
            raise AssertionError("woken too early")
    return took


def test_a_section_that_rings_wakes_waiters_in_other_processes(arena: Arena, kind: str) -> None:
    rounds = 20
    guard = counting_guard(arena)
    with Crew("fork") as crew:
        members = [crew.add(listen, Parcel(arena), kind, rounds) for _ in range(2)]
        crew.go()
        for _ in range(rounds):
            for member in members:
                assert member.hear() == "listening"
            # Somewhere between just before and well inside their sleep.
            guard.run(guard.bell.ring_locked)
        took = [value for results in crew.results() for value in results]
    # Unwoken, each would have slept for half a second. Processors are shared with others.
    assert sorted(took)[len(took) // 2] < 0.25


def test_the_wake_comes_after_the_lock_is_free(arena: Arena) -> None:
    guard = counting_guard(arena)
    order: list[str] = []

    class Spy:
        rung = True

        def wake(self) -> None:
            guard.bell = real
            order.append(f"free: {guard.run(lambda: True)}")

    real = guard.bell
    guard.bell = Spy()  # type: ignore[assignment]
    guard.run(order.append, "section")
    assert order == ["section", "free: True"]


def test_a_section_that_raises_still_wakes(arena: Arena) -> None:
    guard = counting_guard(arena)
    guard.bell.seen_locked()

    def section() -> None:
        guard.bell.ring_locked()
        raise KeyError

    with pytest.raises(KeyError):
        guard.run(section)
    assert not guard.bell.rung


def test_waiting_lets_other_threads_run(arena: Arena, kind: str) -> None:
    bell = Bell(arena, kind)
    seen = bell.seen_locked()

    def ring() -> None:
        bell.ring_locked()
        bell.wake()

    thread = threading.Thread(target=ring)
    thread.start()
    until = time.monotonic() + 30
    while arena.words[header.BELL] & 0xFFFFFFFF == seen:
        bell.wait(seen, 0.1)
        assert time.monotonic() < until
    thread.join(30)


def test_without_a_futex_it_polls(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(futex, "futex_number", lambda: None)
    bell = Bell(arena)
    seen = bell.seen_locked()
    assert timed(lambda: bell.wait(seen, 0.05)) >= 0.049
    bell.ring_locked()
    bell.wake()
    with pytest.raises(SpecError, match="no futex that shmtable knows; use kind='poll'"):
        Bell(arena, "futex")


def test_a_forbidden_futex_becomes_polling(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(futex, "futex_number", lambda: 10**6)  # ENOSYS, as in a sandbox
    bell = Bell(arena)
    seen = bell.seen_locked()
    assert 0.049 <= timed(lambda: bell.wait(seen, 0.05)) < 5
    assert bell._number is None


def test_an_unknown_kind(arena: Arena) -> None:
    with pytest.raises(SpecError, match="bell kind 'gong' must be 'futex' or 'poll'"):
        Bell(arena, "gong")
