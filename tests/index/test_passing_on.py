"""A sequence that leaves for another of its size leaves it its slot and its rows."""

from __future__ import annotations

from shmtable.index import fields as f
from shmtable.index import findings_locked
from tests.index.worlds import World


def test_one_that_goes_passes_its_rows_on_to_one_that_needs_as_many() -> None:
    world = World(30, 4)
    slots = [world.add(identity, 10, span=11) for identity in range(3)]
    world.index.eject_locked([slots[0]])
    world.add(3, 10, span=11)  # into the gap, which is of its size
    assert world.arrays.slots[slots, f.START].tolist() == [0, 11, 22]
    generation = world.field(slots[1], f.GENERATION)
    reservation = world.reserve(4, 10, span=11)
    assert (reservation.slot, reservation.start) == (slots[1], 11)
    assert reservation.generation == generation + 1
    assert world.identities() == [2, 3] and world.words[f.REMOVED] == 2
    assert findings_locked(world.index) == []
    world.commit(reservation)
    assert world.identities() == [2, 3, 4]
    world.add(5, 10, span=10)  # a row less: what goes leaves a gap, and the rest of it stays free
    assert world.identities() == [3, 4, 5]
    assert findings_locked(world.index) == []


def test_rows_are_passed_on_where_a_gap_is_free_too() -> None:
    world = World(30, 3)
    slots = [world.add(identity, 10) for identity in range(3)]
    world.index.eject_locked([slots[0]])
    world.add(3, 5)
    world.add(4, 4)  # as many sequences as may be; 11 rows lie free behind these two
    assert world.identities() == [2, 3, 4]
    start = world.field(slots[2], f.START)
    assert world.reserve(5, 10).start == start
    assert findings_locked(world.index) == []
