"""``rebuild``: all that is derived comes from the slots again; what was cut off is settled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shmtable.index import Attachments, findings_locked
from shmtable.index import fields as f
from shmtable.shm.header import DIRTY
from tests.index.worlds import World, churned

NOBODY_LEFT = 1 << 62  # every attachment there can be has a lower number
DERIVED_COUNTS = (
    f.LIVE_COUNT,
    f.LIVE_STEPS,
    f.WRITING_COUNT,
    f.WRITING_STEPS,
    f.FREE_COUNT,
    f.ROW_HIGH,
)


def truth(world: World) -> list[list[int]]:
    return world.arrays.slots[: world.words[f.SLOT_HIGH]].tolist()


def meaning(world: World) -> dict[str, object]:
    """What the derived state says, apart from orders that do not matter."""
    words, arrays, links = world.words, world.arrays, world.arrays.links
    by_address, by_order = [], []
    node = int(links[0, f.RIGHT])
    while node:
        by_address.append((node, int(links[node, f.GAP])))
        node = int(links[node, f.RIGHT])
    node = int(links[0, f.NEWER])
    while node:
        by_order.append(node)
        node = int(links[node, f.NEWER])
    return {
        "counts": [words[word] for word in DERIVED_COUNTS if word != f.ROW_HIGH],
        "live": sorted(arrays.live[: words[f.LIVE_COUNT]].tolist()),
        "free": sorted(arrays.free[: words[f.FREE_COUNT]].tolist()),
        "by address": by_address,
        "by order": by_order,
        "identities": {
            identity: world.index.identities.find_locked(identity) for identity in range(1010)
        },
    }


def vandalise(world: World, seed: int) -> None:
    """Write rubbish over everything that may be derived from the slot table."""
    random = np.random.default_rng(seed)
    arrays = world.arrays
    for array in (arrays.links, arrays.live, arrays.free):
        array[:] = random.integers(-5, 200, array.shape)
    for words in (arrays.bucket_words, arrays.bin_words):
        for number in range(len(words)):
            words[number] = int(random.integers(0, 200))
    for word in DERIVED_COUNTS:
        world.words[word] = int(random.integers(-1000, 1000))


@pytest.mark.parametrize("seed", range(5))
def test_everything_derived_is_recomputed_from_the_slots(seed: int) -> None:
    world = churned(seed, replaced=2)
    before, slots = meaning(world), truth(world)
    vandalise(world, seed)
    world.index.rebuild_locked()
    assert findings_locked(world.index) == []
    assert meaning(world) == before
    assert truth(world) == slots
    assert world.rebuilt == 1
    assert world.words[DIRTY] == 0


def test_rebuild_is_idempotent() -> None:
    world = churned(3, replaced=1)
    world.index.rebuild_locked()
    once = world.memory.clone()
    world.index.rebuild_locked()
    world.words[f.EXITS] -= 1  # which may rise for nothing
    assert world.memory.equal(once)


def test_rebuild_of_an_empty_index() -> None:
    world = World()
    vandalise(world, 0)
    world.index.rebuild_locked()
    assert findings_locked(world.index) == []
    assert world.add(5, 10) == 1


def test_a_rebuilt_index_works_on() -> None:
    world = churned(4)
    world.index.rebuild_locked()
    for identity in range(2000, 2100):
        world.add(identity, 35)
        assert findings_locked(world.index) == []
    assert world.identities()[-1] == 2099


def test_waiters_are_told() -> None:
    world = churned(4)
    rung = world.rung
    world.index.rebuild_locked()
    assert world.rung == rung + 1


def test_what_the_living_are_writing_is_kept() -> None:
    world = World()
    world.add(1, 5)
    reservation = world.reserve(2, 7)
    vandalise(world, 1)
    world.index.rebuild_locked()
    assert findings_locked(world.index) == []
    assert world.field(reservation.slot, f.STATE) == f.WRITING
    world.commit(reservation)
    assert world.identities() == [1, 2]
    assert findings_locked(world.index) == []


def test_what_the_dead_were_writing_is_freed() -> None:
    world = World()
    world.add(1, 5)
    slot = world.reserve(2, 7).slot
    world.orphan(slot)
    world.index.rebuild_locked()
    assert findings_locked(world.index) == []
    assert world.field(slot, f.STATE) == f.FREE
    assert world.field(slot, f.GENERATION) == 1
    assert world.index.identities.find_locked(2) == (0, 0)
    assert world.add(2, 900) == slot


def test_of_attachments_that_have_ended_nobody_can_be_writing() -> None:
    world = World()
    slot = world.reserve(2, 7).slot
    world.index.rebuild_locked(gone_before=NOBODY_LEFT)
    assert world.field(slot, f.STATE) == f.FREE
    assert findings_locked(world.index) == []


def test_who_has_joined_since_is_still_writing() -> None:
    # Of those that come to a file at once, one finds it without users and settles it, in a
    # section of its own; by then others may have joined and be writing.
    world = World()
    world.words[f.NEXT_ATTACHMENT] = 3
    attachments = Attachments(world.words, world.arrays.attachment_words)
    world.index.attachment = attachments.join_locked()
    slot = world.reserve(2, 7).slot
    world.index.rebuild_locked(gone_before=3)
    assert world.field(slot, f.STATE) == f.WRITING
    start = world.field(slot, f.START)
    assert (world.arrays.row_slot[start : start + 7] == slot).all()
    world.index.rebuild_locked(gone_before=4)
    assert world.field(slot, f.STATE) == f.FREE


def test_alone_the_row_map_is_made_anew() -> None:
    # Of a file that the system did not finish writing, any page may be missing.
    world = churned(2)
    rows = world.arrays.row_slot
    rows[:] = np.random.default_rng(0).integers(-(2**31), 2**31, len(rows))
    world.index.rebuild_locked(gone_before=NOBODY_LEFT)
    assert findings_locked(world.index) == []
    slots = world.arrays.row_slot[: world.words[f.ROW_HIGH]]
    assert set(slots.tolist()) == {0, *world.slots_in(f.LIVE).tolist()}


def test_of_two_sequences_with_one_identity_the_later_stays() -> None:
    # A replacement became live, and its writer died before it freed the predecessor.
    world = World()
    world.add(1, 5)
    old, other, new = world.add(8, 5), world.add(3, 6), world.add(4, 7)
    world.set(new, f.IDENTITY, 8)
    world.index.rebuild_locked()
    assert findings_locked(world.index) == []
    assert world.identities() == [1, 3, 8]
    assert world.index.identities.find_locked(8) == (new, 0)
    assert [world.field(slot, f.GENERATION) for slot in (old, other, new)] == [1, 0, 0]
    assert world.field(old, f.STATE) == f.FREE


def test_three_of_one_identity_leave_the_latest() -> None:
    world = World()
    slots = [world.add(identity, 5) for identity in range(6)]
    for slot in slots[1:4]:
        world.set(slot, f.IDENTITY, -9)
    world.index.rebuild_locked()
    assert world.identities() == [0, -9, 4, 5]
    assert world.index.identities.find_locked(-9) == (slots[3], 0)


def test_an_interrupted_clear_is_finished() -> None:
    # Its commit point is LIVE_FROM; what came later, or is still being written, stays.
    world = World()
    slots = [world.add(identity, 5) for identity in range(4)]
    writing = world.reserve(9, 5)
    world.words[f.LIVE_FROM] = world.field(slots[3], f.ORDER)
    world.index.rebuild_locked()
    assert findings_locked(world.index) == []
    assert world.identities() == [3]
    assert [world.field(slot, f.GENERATION) for slot in slots] == [1, 1, 1, 0]
    world.commit(writing)
    assert world.identities() == [3, 9]


def test_a_duplicate_that_was_cleared_does_not_count() -> None:
    world = World()
    slots = [world.add(identity, 5) for identity in range(4)]
    world.words[f.LIVE_FROM] = world.field(slots[2], f.ORDER)
    world.set(slots[0], f.IDENTITY, 3)
    world.index.rebuild_locked()
    assert world.identities() == [2, 3]


def test_counters_that_only_rise_are_raised_to_what_the_slots_say() -> None:
    world = World()
    slots = [world.add(identity, 5) for identity in range(3)]
    marks = (f.NEXT_ORDER, f.STEP_TOTAL, f.SEQUENCE_TOTAL, f.LONGEST, f.UPDATES)
    world.set(slots[1], f.VERSION, 4)
    for mark in marks:
        world.words[mark] = 0
    world.index.rebuild_locked()
    assert world.words[f.NEXT_ORDER] == world.field(slots[2], f.ORDER) + 1
    assert [world.words[mark] for mark in marks[1:]] == [15, 3, 5, 4]
    for mark in marks:
        world.words[mark] = 70 + mark
    world.index.rebuild_locked()
    assert [world.words[mark] for mark in marks] == [70 + mark for mark in marks]


def negative_start(world: World, slot: int) -> None:
    world.set(slot, f.START, -3)


def far_away(world: World, slot: int) -> None:
    world.set(slot, f.START, 1 << 50)


def endless(world: World, slot: int) -> None:
    world.set(slot, f.SPAN, 1 << 62)


def empty(world: World, slot: int) -> None:
    world.set(slot, f.LENGTH, 0)


def longer_than_its_rows(world: World, slot: int) -> None:
    world.set(slot, f.LENGTH, world.field(slot, f.SPAN) + 1)


def update_to_come(world: World, slot: int) -> None:
    world.set(slot, f.VERSION, 1 << 62)


def unknown_state(world: World, slot: int) -> None:
    world.set(slot, f.STATE, 77)


@pytest.mark.parametrize(
    "damage",
    [
        *(negative_start, far_away, endless, empty, longer_than_its_rows),
        *(update_to_come, unknown_state),
    ],
    ids=lambda damage: str(damage.__name__),
)
def test_a_slot_that_cannot_be_costs_its_own_sequence_only(
    damage: Callable[[World, int], None],
) -> None:
    world = World()
    slots = [world.add(identity, 5) for identity in range(5)]
    damage(world, slots[2])
    world.index.rebuild_locked(gone_before=NOBODY_LEFT)
    assert findings_locked(world.index) == []
    assert world.identities() == [0, 1, 3, 4]


def test_of_slots_that_overlap_one_stays() -> None:
    world = World()
    slots = [world.add(identity, 5) for identity in range(5)]
    world.set(slots[2], f.START, 7)
    world.index.rebuild_locked(gone_before=NOBODY_LEFT)
    assert findings_locked(world.index) == []
    assert {0, 3, 4} < set(world.identities()) < {0, 1, 2, 3, 4}
