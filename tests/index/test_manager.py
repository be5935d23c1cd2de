"""Reserving, committing and leaving: plans before the first store, and what follows from each."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from shmtable.errors import DuplicateIdentityError
from shmtable.index import Blocked, Growth, Request, findings_locked
from shmtable.index import fields as f
from shmtable.index.layout import row_limit
from shmtable.shm.header import DIRTY
from shmtable.types import Int64Array
from tests.index.worlds import World

Victims = Callable[[int], Int64Array]


def ask(
    world: World,
    identity: int,
    length: int,
    *,
    replace: bool = False,
    victims: Victims | None = None,
) -> object:
    request = Request(identity, length, length, 0, replace)
    return world.index.reserve_locked(request, victims or world.oldest, sys._getframe())


def nobody(transitions: int) -> Int64Array:
    raise AssertionError(f"asked to eject {transitions} transitions")


def always(*slots: int) -> Victims:
    return lambda transitions: np.array(slots, np.int64)


def test_a_reservation_is_not_live_until_committed() -> None:
    world = World()
    reservation = world.reserve(7, 5, span=6)
    assert (world.words[f.WRITING_COUNT], world.words[f.WRITING_STEPS]) == (1, 5)
    assert world.words[f.LIVE_COUNT] == 0
    assert world.index.identities.find_locked(7) == (0, reservation.slot)
    assert findings_locked(world.index) == []
    world.commit(reservation)
    assert world.words[f.WRITING_COUNT] == world.words[f.WRITING_STEPS] == 0
    assert (world.words[f.LIVE_COUNT], world.words[f.LIVE_STEPS]) == (1, 5)
    assert world.index.identities.find_locked(7) == (reservation.slot, 0)
    assert findings_locked(world.index) == []


def test_orders_and_steps_count_on() -> None:
    world = World()
    slots = [world.add(identity, length) for identity, length in ((4, 3), (5, 10), (6, 1))]
    assert [world.field(slot, f.ORDER) for slot in slots] == [0, 1, 2]
    assert world.arrays.notes[slots, f.STEPS_AT].tolist() == [3, 13, 14]
    world.index.eject_locked(slots)
    assert world.field(world.add(4, 2), f.ORDER) == 3
    assert world.words[f.STEP_TOTAL] == 16
    assert world.words[f.REMOVED] == 3


def test_the_order_is_that_of_commits() -> None:
    world = World()
    first, second = world.reserve(1, 5), world.reserve(2, 5)
    world.commit(second)
    world.commit(first)
    assert world.identities() == [2, 1]


def test_strategies_are_told_of_commits_and_departures() -> None:
    world = World()
    slots = [world.add(identity, 10, span=11) for identity in range(3)]
    assert world.tracked == [(slot, 11 * nth, 10) for nth, slot in enumerate(slots)]
    world.reserve(99, 5)
    world.index.abort_of_locked(sys._getframe())
    assert world.forgotten == []
    world.index.eject_locked(slots[1:])
    assert world.forgotten == world.tracked[1:]


def test_a_slot_that_is_used_again_has_another_generation() -> None:
    world = World()
    slot = world.add(1, 5)
    world.index.eject_locked([slot])
    assert world.add(1, 5) == slot
    assert world.field(slot, f.GENERATION) == 1
    world.reserve(2, 5)
    world.index.abort_of_locked(sys._getframe())
    assert world.field(2, f.GENERATION) == 1


def test_as_many_are_ejected_as_needed_and_no_more() -> None:
    world = World(30)
    for identity in range(3):
        world.add(identity, 10)
    assert world.words[f.SATURATED] == 0
    world.reserve(3, 11)
    assert world.identities() == [2]
    assert world.words[f.SATURATED] == 1
    assert findings_locked(world.index) == []


def test_the_number_of_sequences_is_limited_too() -> None:
    world = World(1000, 3)
    for identity in range(3):
        world.add(identity, 10)
    assert world.words[f.SATURATED] == 0
    world.reserve(3, 1)
    assert world.identities() == [1, 2]
    world.reserve(4, 1)
    assert world.identities() == [2]
    assert findings_locked(world.index) == []


def test_what_is_being_written_takes_room_and_is_waited_for() -> None:
    world = World(30)
    world.reserve(1, 20)
    before = world.memory.clone()
    outcome = ask(world, 2, 11, victims=nobody)
    assert outcome == Blocked("the room left is taken by sequences that others are writing")
    assert world.memory.equal(before)
    assert not isinstance(ask(world, 3, 10), Blocked)


def test_waiting_ejects_nobody() -> None:
    world = World(30)
    world.add(0, 10)
    world.reserve(1, 15)
    assert isinstance(ask(world, 2, 16), Blocked)
    assert world.identities() == [0]


def test_a_live_identity_is_refused_before_the_first_store() -> None:
    world = World(30)
    world.add(5, 10)
    world.reserve(6, 10)
    before = world.memory.clone()
    with pytest.raises(DuplicateIdentityError, match="^identity 5 is already in the table: "):
        ask(world, 5, 25, victims=nobody)
    with pytest.raises(DuplicateIdentityError, match="^identity 6 is already being written: "):
        ask(world, 6, 25, victims=nobody)
    assert world.memory.equal(before)


def test_an_identity_that_a_dead_process_was_writing_is_free() -> None:
    world = World(30)
    slot = world.reserve(6, 10).slot
    world.orphan(slot)
    assert ask(world, 6, 25, victims=nobody).slot == slot  # type: ignore[attr-defined]
    assert world.field(slot, f.GENERATION) == 1
    assert findings_locked(world.index) == []


def test_a_replacement_waits_for_one_under_way() -> None:
    world = World()
    world.reserve(6, 10)
    outcome = ask(world, 6, 10, replace=True)
    assert outcome == Blocked("identity 6 is being written by another process")


def test_the_one_replaced_stays_until_the_commit() -> None:
    world = World(30)
    world.add(1, 10)
    old = world.add(2, 20)
    reservation = world.reserve(2, 15, replace=True, victims=nobody)
    assert world.identities() == [1, 2]
    assert world.index.identities.find_locked(2) == (old, reservation.slot)
    assert findings_locked(world.index) == []
    slot = world.commit(reservation)
    assert world.identities() == [1, 2]
    assert world.index.identities.find_locked(2) == (slot, 0)
    assert world.field(old, f.STATE) == f.FREE
    assert findings_locked(world.index) == []


def test_a_full_table_can_replace_a_sequence_as_large_as_itself() -> None:
    world = World(30)
    world.add(1, 30)
    world.commit(world.reserve(1, 30, replace=True, victims=nobody))
    world.commit(world.reserve(1, 30, replace=True, victims=nobody))
    assert world.identities() == [1]
    assert findings_locked(world.index) == []


def test_room_for_a_replacement_is_not_made_by_ejecting_the_replaced() -> None:
    world = World(30)
    for identity in (1, 2, 3):
        world.add(identity, 10)
    reservation = world.reserve(1, 15, replace=True)
    assert world.identities() == [1, 3]
    world.commit(reservation)
    assert world.identities() == [3, 1]


def test_no_more_are_ejected_because_the_replaced_would_have_gone_late() -> None:
    world = World(60)
    slots = [world.add(identity, length) for identity, length in enumerate((30, 10, 10, 10))]

    def victims(transitions: int) -> Int64Array:
        return np.array(slots[:1] if transitions == 5 else [*slots[1:], slots[0]])

    world.reserve(0, 35, replace=True, victims=victims)
    assert world.identities() == [0, 2, 3]
    assert findings_locked(world.index) == []


def test_a_replacement_finds_that_its_predecessor_has_left_by_itself() -> None:
    world = World(30)
    old = world.add(1, 10)
    reservation = world.reserve(1, 10, replace=True)
    world.index.eject_locked([old])
    newcomer = world.add(2, 5)
    assert newcomer == old
    world.commit(reservation)
    assert world.identities() == [2, 1]
    assert findings_locked(world.index) == []


WRONG_CHOICES = {
    "one that is not live": (always(5), "the ejector chose slot 5, which is not live"),
    "too little": (always(1), "freed 10 transitions in 1 slots, 15 were asked for"),
    "one twice": (always(1, 1), "freed 20 transitions in 2 slots, 15 were asked for"),
    "none": (always(), "freed 0 transitions in 0 slots, 15 were asked for"),
}


@pytest.mark.parametrize("choice", WRONG_CHOICES)
def test_an_ejector_that_chooses_wrongly_changes_nothing(choice: str) -> None:
    victims, message = WRONG_CHOICES[choice]
    world = World(30)
    for identity in range(3):
        world.add(identity, 10)
    before = world.memory.clone()
    with pytest.raises(RuntimeError, match=message):
        ask(world, 9, 15, victims=victims)
    assert world.memory.equal(before)


def test_memory_that_must_be_reserved_first_is_asked_for_without_a_store() -> None:
    world = World(100)
    world.add(1, 10)
    world.words[f.RESERVED_ROWS] = 12
    world.words[f.RESERVED_SLOTS] = 2
    before = world.memory.clone()
    assert ask(world, 2, 5) == Growth(rows=15, slots=3, buckets=1024)
    assert world.memory.equal(before)
    world.words[f.RESERVED_ROWS] = 15
    assert ask(world, 2, 5) == Growth(rows=0, slots=3, buckets=1024)
    world.words[f.RESERVED_SLOTS] = 3
    assert not isinstance(ask(world, 2, 5), Growth)


def test_a_map_half_full_is_enlarged_first() -> None:
    world = World(2000)
    for identity in range(512):
        world.add(identity, 1)
    assert ask(world, -1, 1) == Growth(rows=0, slots=514, buckets=2048)
    world.index.grow_buckets_locked(2048)
    assert findings_locked(world.index) == []
    world.add(-1, 1)
    assert findings_locked(world.index) == []


def test_resizing_raises_the_limits() -> None:
    world = World(30, 10)
    for identity in range(4):
        world.add(identity, 10)
    assert world.words[f.SATURATED] == 1
    world.index.resize_locked(60, 20)
    assert world.words[f.SATURATED] == 0
    for identity in range(4, 7):
        world.add(identity, 10)
    assert world.identities() == [1, 2, 3, 4, 5, 6]
    assert world.words[f.SATURATED] == 0


def test_clearing_spares_what_is_being_written() -> None:
    world = World(30)
    slots = [world.add(1, 10), world.add(2, 10)]
    reservation = world.reserve(3, 10)
    world.index.clear_locked()
    assert world.identities() == []
    assert world.words[f.REMOVED] == 2
    assert [world.field(slot, f.GENERATION) for slot in slots] == [1, 1]
    assert world.words[f.SATURATED] == 0
    assert findings_locked(world.index) == []
    world.commit(reservation)
    assert world.identities() == [3]


def test_sweeping_takes_back_from_the_dead_only() -> None:
    world = World()
    kept = world.reserve(1, 5).slot
    for identity in (2, 3):
        world.orphan(world.reserve(identity, 5).slot)
    assert world.index.sweep_locked() == 2
    assert world.slots_in(f.WRITING).tolist() == [kept]
    assert world.index.sweep_locked() == 0
    assert findings_locked(world.index) == []


def test_every_change_rings_and_leaves_the_mark_clear() -> None:
    world = World(30)
    for change in (
        lambda: world.reserve(1, 10),
        lambda: world.index.commit_locked(world.reserve(2, 10)),
        lambda: world.index.eject_locked([2]),
        world.index.clear_locked,
        lambda: world.index.resize_locked(40, 30),
        lambda: world.index.abort_abandoned_locked(),
    ):
        rung = world.rung
        change()
        assert world.rung > rung
        assert world.words[DIRTY] == 0


def test_only_more_ejections_make_room_where_no_gap_is_wide_enough() -> None:
    # Every fourth sequence stays as far apart as rows allow: enough rows are free, in pieces.
    world = World(100, 100, extra_rows=0)
    rows = row_limit(100, 100, 0)
    slots = [world.add(identity, 1, span=1) for identity in range(100)]
    for identity in range(100, rows):
        world.index.eject_locked([slots[identity - 100]])
        slots.append(world.add(identity, 1, span=1))
    # 100 live ones lie at the top; thin them out to every fourth and spread them by hand.
    world.index.eject_locked([s for n, s in enumerate(slots[-100:]) if n >= 25])
    spread = slots[-100:-75]
    for nth, slot in enumerate(spread):
        world.set(slot, f.START, nth * 12 + 11)
        world.arrays.row_slot[nth * 12 + 11] = slot
    world.index.rebuild_locked()
    assert findings_locked(world.index) == []
    assert world.words[f.LIVE_STEPS] == 25
    asked: list[int] = []

    def victims(transitions: int) -> Int64Array:
        asked.append(transitions)
        return world.oldest(transitions)

    reservation = world.reserve(-1, 70, victims=victims)
    # 25 + 70 transitions fit without ejecting any; 70 rows in one piece do not.
    assert asked == [25]
    assert world.identities() == []
    assert findings_locked(world.index) == []
    world.commit(reservation)
    assert world.identities() == [-1]


def test_rows_never_reserved_are_not_given_out_though_ejections_crowd_the_bins() -> None:
    # One gap of 71 holds the request, and no more memory is needed. Then twenty ejections each
    # make a gap of 64, of the same bin, and push it out of the sight of a quick search.
    world = World(2000)
    world.add(-1, 71)
    kept, holes = [world.add(-2, 1)], []
    for identity in range(0, 40, 2):
        holes.append(world.add(1000 + identity, 63))
        world.add(identity, 1)
        kept.append(world.add(1001 + identity, 1))
    world.index.eject_locked([1, *holes])
    victims = [world.index.identities.find_locked(identity)[0] for identity in range(0, 40, 2)]
    world.words[f.MAXLEN] = world.words[f.LIVE_STEPS] + 71 - len(victims)
    world.words[f.RESERVED_ROWS] = world.words[f.ROW_HIGH]
    reservation = world.reserve(5000, 71, victims=always(*victims))
    assert len(world.slots_in(f.LIVE)) == len(kept)
    assert reservation.start == 0
    assert findings_locked(world.index) == []


def test_sequences_of_a_file_get_rows_side_by_side_or_none_at_all() -> None:
    world = World(60, 10)
    slots = [world.add(identity, 10) for identity in range(6)]
    world.index.eject_locked([slots[1], slots[3], slots[4]])  # gaps of 10 and of 20 rows
    frame = sys._getframe()

    def load(*lengths: int) -> object:
        requests = [Request(50 + n, n, n, 0, False) for n in lengths]
        return world.index.load_locked(requests, frame)

    loaded = load(9, 4, 7)
    assert isinstance(loaded, list)
    assert [one.start for one in loaded] == [30, 39, 43]
    assert len(world.index.reservations) == 3
    assert findings_locked(world.index) == []
    world.words[f.RESERVED_ROWS] = 150
    before = bytes(world.words), bytes(world.arrays.slot_words)
    assert load(*[20] * 5) == Growth(60 + 100, 12, world.words[f.BUCKETS])
    assert isinstance(load(*[30] * 10), Blocked)
    assert (bytes(world.words), bytes(world.arrays.slot_words)) == before
    world.index.abort_of_locked(frame)
    assert len(world.slots_in(f.LOADED)) == 0
