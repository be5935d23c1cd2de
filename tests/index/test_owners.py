"""Reservations: whose they are, and which have been abandoned."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import pytest

from shmtable.errors import SlotLostError
from shmtable.index import fields as f
from shmtable.index import findings_locked, owners
from shmtable.index.owners import Reservations, owner_is_gone
from shmtable.shm import process
from tests.index.worlds import World


def test_a_reservation_of_a_running_call_is_not_abandoned() -> None:
    reservations = Reservations()
    reservations.open(5, sys._getframe())
    assert reservations.abandoned() == []
    assert reservations.of(sys._getframe()) == [5]
    assert len(reservations) == 1


def test_a_reservation_of_a_call_that_has_returned_is_abandoned() -> None:
    reservations = Reservations()

    def call() -> FrameType:
        reservations.open(5, sys._getframe())
        return sys._getframe()

    frame = call()
    assert reservations.abandoned() == [5]
    assert reservations.of(frame) == [5]
    assert reservations.of(sys._getframe()) == []


def test_a_call_further_up_the_stack_is_still_running() -> None:
    reservations = Reservations()
    reservations.open(5, sys._getframe())

    def deeper(levels: int) -> list[int]:
        return deeper(levels - 1) if levels else reservations.abandoned()

    assert deeper(10) == []


def test_another_threads_call_is_abandoned_when_it_returns_or_the_thread_ends() -> None:
    reservations = Reservations()
    opened, finish, left = threading.Event(), threading.Event(), threading.Event()
    end = threading.Event()

    def call() -> None:
        reservations.open(5, sys._getframe())
        opened.set()
        assert finish.wait(30)

    def body() -> None:
        call()
        left.set()
        assert end.wait(30)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        assert opened.wait(30)
        assert reservations.abandoned() == []
        finish.set()
        assert left.wait(30)
        assert reservations.abandoned() == [5]
    finally:
        finish.set()
        end.set()
        thread.join()
    assert reservations.abandoned() == [5]


def test_closing_forgets() -> None:
    reservations = Reservations()
    reservations.open(5, sys._getframe())
    reservations.open(6, sys._getframe())
    reservations.close(5)
    reservations.close(5)
    assert reservations.of(sys._getframe()) == [6]
    reservations.clear()
    assert len(reservations) == 0


def test_the_owner_of_a_reservation_is_alive() -> None:
    world = World()
    slot = world.reserve(1, 5).slot
    assert int(world.arrays.notes[slot, f.OWNER_PID]) == os.getpid()
    assert int(world.arrays.notes[slot, f.OWNER_START]) == process.current().start
    assert not owner_is_gone(world.arrays, slot)


def test_an_earlier_process_of_the_same_number_is_gone() -> None:
    world = World()
    slot = world.reserve(1, 5).slot
    world.orphan(slot)
    assert owner_is_gone(world.arrays, slot)


def test_a_process_that_has_ended_is_gone() -> None:
    world = World()
    slot = world.reserve(1, 5).slot
    child = os.fork()
    if not child:
        os._exit(0)
    world.arrays.notes[slot, f.OWNER_PID] = child
    world.arrays.notes[slot, f.OWNER_START] = 0
    os.waitpid(child, 0)
    assert owner_is_gone(world.arrays, slot)


def give_back_of_call(world: World, caller: FrameType) -> None:
    world.index.abort_of_locked(caller)


def give_back_abandoned(world: World, _: FrameType) -> None:
    world.index.abort_abandoned_locked()


@pytest.mark.parametrize("give_back", [give_back_of_call, give_back_abandoned])
def test_what_a_call_leaves_open_is_given_back(
    give_back: Callable[[World, FrameType], None],
) -> None:
    world = World()
    kept = world.reserve(1, 5)

    def call() -> FrameType:
        world.reserve(2, 6)
        world.reserve(3, 7)
        return sys._getframe()

    give_back(world, call())
    assert findings_locked(world.index) == []
    assert world.slots_in(f.WRITING).tolist() == [kept.slot]
    assert len(world.index.reservations) == 1
    world.commit(kept)
    assert world.identities() == [1]


def test_a_reservation_that_was_taken_away_cannot_be_committed() -> None:
    world = World()
    reservation = world.reserve(1, 5)
    world.index.reclaim_locked([reservation.slot])
    for taken_by_another in (False, True):
        if taken_by_another:
            assert world.reserve(2, 5).slot == reservation.slot
        with pytest.raises(SlotLostError, match="slot 1 was reclaimed .* add the sequence again"):
            world.index.commit_locked(reservation)
        assert findings_locked(world.index) == []
        assert world.identities() == []


def test_giving_back_what_was_taken_away_leaves_the_new_owner_alone() -> None:
    world = World()
    reservation = world.reserve(1, 5)
    world.index.reclaim_locked([reservation.slot])
    world.index.reservations.open(reservation.slot, sys._getframe())
    other = World(1000)
    other.add(2, 5)
    world.add(2, 5)
    world.index.abort_of_locked(sys._getframe())
    assert world.identities() == [2]
    assert len(world.index.reservations) == 0
    assert findings_locked(world.index) == []


@pytest.mark.parametrize("state", [f.WRITING, f.LOADED])
def test_somebody_looks_for_slots_of_the_dead_now_and_then(
    state: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, now = World(), 10**12
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    world.add(9, 5)  # nobody else has anything open: nothing to look for
    assert world.words[f.SWEEP_AT_NS] == 0
    first, second = (
        world.reserve(identity, 5).slot if state == f.WRITING else world.load(identity, 5)
        for identity in (1, 2)
    )
    world.index.reservations.clear()  # those are other processes'
    world.orphan(first)
    world.add(3, 5)
    assert world.slots_in(state).tolist() == [second]
    world.orphan(second)
    now += owners.SWEEP_NS - 1
    world.add(4, 5)
    assert world.slots_in(state).tolist() == [second]  # a moment ago somebody looked
    now += 1
    world.add(5, 5)
    assert world.slots_in(state).tolist() == []
    assert findings_locked(world.index) == []
    assert world.identities() == [9, 3, 4, 5]


def test_the_clock_of_another_run_of_the_machine_keeps_nobody_from_looking() -> None:
    world = World()
    slot = world.reserve(1, 5).slot
    world.index.reservations.clear()
    world.orphan(slot)
    world.words[f.SWEEP_AT_NS] = time.monotonic_ns() + 10**15
    world.add(2, 5)
    assert world.slots_in(f.WRITING).tolist() == []


def test_the_living_are_left_alone() -> None:
    world = World()
    slot = world.reserve(1, 5).slot
    world.index.reservations.clear()
    world.add(2, 5)
    assert world.slots_in(f.WRITING).tolist() == [slot]
