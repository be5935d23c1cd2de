"""``check()``: a sound index has no findings; break one thing, and that thing is named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shmtable.index import fields as f
from shmtable.index import findings_locked
from shmtable.index.extents import bin_of
from tests.index.worlds import World, churned

Vandal = Callable[[World], None]


def rules(world: World) -> set[str]:
    return {finding.rule for finding in findings_locked(world.index)}


def some(world: World, state: int = f.LIVE, nth: int = 5) -> int:
    return int(world.slots_in(state)[nth])


def put(field: int, value: int, state: int = f.LIVE) -> Vandal:
    return lambda world: world.set(some(world, state, 1), field, value)


def count(word: int, change: int) -> Vandal:
    def vandal(world: World) -> None:
        world.words[word] += change

    return vandal


def link(field: int, change: int = 1) -> Vandal:
    def vandal(world: World) -> None:
        world.arrays.links[some(world), field] += change

    return vandal


def copy_field(field: int) -> Vandal:
    return lambda world: world.set(some(world), field, world.field(some(world, nth=6), field))


def overlap(world: World) -> None:
    by_start = world.slots_in(f.LIVE)
    by_start = by_start[np.argsort(world.arrays.slots[by_start, f.START])]
    world.set(int(by_start[7]), f.SPAN, world.field(int(by_start[7]), f.SPAN) + 40)


def shorter_than_its_rows(world: World) -> None:
    slot = some(world)
    world.set(slot, f.SPAN, world.field(slot, f.LENGTH) - 1)


def moved_gap(world: World) -> None:
    """A gap's record says one row less; its bin list is what that size asks for."""
    for node in world.slots_in(f.LIVE).tolist():
        gap = int(world.arrays.links[node, f.GAP])
        if gap > 1 and bin_of(gap) == bin_of(gap - 1):
            world.arrays.links[node, f.GAP] -= 1
            return
    raise AssertionError("no gap to spoil")


def lost_bin(world: World) -> None:
    world.arrays.bin_words[max(n for n in range(504) if world.arrays.bin_words[n])] = 0


def stale_bitmap(world: World) -> None:
    world.arrays.bin_words[504 + 7] |= 1 << 3


def full_bin(world: World) -> int:
    """The first node of a bin's list that has more than one."""
    heads = [int(world.arrays.bin_words[n]) - 1 for n in range(504)]
    return next(head for head in heads if head >= 0 and world.arrays.links[head, f.BIN_NEXT])


def cycle_in_bin(world: World) -> None:
    node = full_bin(world)
    world.arrays.links[world.arrays.links[node, f.BIN_NEXT] - 1, f.BIN_NEXT] = node + 1


def broken_way_back(world: World) -> None:
    world.arrays.links[world.arrays.links[full_bin(world), f.BIN_NEXT] - 1, f.BIN_PREVIOUS] = 0


def lost_in_space(world: World) -> None:
    node = full_bin(world)
    world.arrays.links[world.arrays.links[node, f.BIN_NEXT] - 1, f.BIN_NEXT] = 1 << 40


def swapped_live(world: World) -> None:
    live = world.arrays.live
    live[[0, 1]] = live[[1, 0]]


def repeated_live(world: World) -> None:
    world.arrays.live[0] = world.arrays.live[1]


def repeated_free(world: World) -> None:
    world.arrays.free[0] = world.arrays.free[1]


def unreachable(world: World) -> None:
    """An entry lies away from its home, with an empty bucket before it."""
    buckets = world.arrays.bucket_words
    full = next(n for n in range(1024) if buckets[n] and not buckets[n - 1])
    empty = next(n for n in range(full + 9, 1024) if not (buckets[n] or buckets[n - 1]))
    buckets[empty], buckets[full] = buckets[full], 0


def unmapped(world: World) -> None:
    buckets = world.arrays.bucket_words
    buckets[next(n for n in range(1024) if buckets[n])] = 0


def mapped_twice(world: World) -> None:
    buckets = world.arrays.bucket_words
    full = next(n for n in range(1023) if buckets[n] and not buckets[n + 1])
    buckets[full + 1] = buckets[full]


def foreign_row(world: World) -> None:
    slot = some(world)
    world.arrays.row_slot[world.field(slot, f.START)] = slot + 1


def slot_zero(world: World) -> None:
    world.set(0, f.STATE, 9)


def high_rows(world: World) -> None:
    world.words[f.RESERVED_ROWS] = world.words[f.ROW_HIGH] - 1


def high_slots(world: World) -> None:
    world.words[f.RESERVED_SLOTS] = world.words[f.SLOT_HIGH] - 1


def too_small(world: World) -> None:
    world.words[f.MAXLEN] = world.words[f.LIVE_STEPS] - 1


def too_few(world: World) -> None:
    world.words[f.MAX_SEQUENCES] = world.words[f.LIVE_COUNT] - 1


FREE_LIST = "the free list holds each free slot once"
ORDER_LIST = "the order list runs through the live slots"
FOUND = "every identity is found"
HELD = "the identity map holds each occupied slot once"
GAPS = "gaps are what lies between extents"
BINS = "every gap is in the bin of its size"
ADDRESSES = "neighbours by address"

# What is broken; the rule that names it; rules that are bound to be broken with it.
CASES: list[tuple[Vandal, str, set[str]]] = [
    (put(f.STATE, 7, f.FREE), "state is known", {FREE_LIST}),
    (slot_zero, "slot 0 is never given out", {"state is known"}),
    (shorter_than_its_rows, "1 <= length <= span", {GAPS, BINS}),
    (overlap, "extents do not overlap", {GAPS, BINS}),
    (high_rows, "rows in use are reserved", set()),
    (high_slots, "slots in use are reserved", set()),
    (copy_field(f.ORDER), "orders are unique", {ORDER_LIST}),
    (count(f.NEXT_ORDER, -1), "live_from <= order < next_order", set()),
    (count(f.LIVE_FROM, 60), "live_from <= order < next_order", set()),
    (put(f.VERSION, 3), "no version is later than the last update", set()),
    (copy_field(f.IDENTITY), "identities are unique", {FOUND}),
    (count(f.LIVE_COUNT, 1), "live count is that of the slots", set()),
    (count(f.LIVE_STEPS, -1), "live steps is that of the slots", set()),
    (count(f.WRITING_COUNT, 1), "writing count is that of the slots", set()),
    (count(f.WRITING_STEPS, 1), "writing steps is that of the slots", set()),
    (count(f.FREE_COUNT, -1), "free count is that of the slots", {FREE_LIST}),
    (repeated_free, FREE_LIST, set()),
    (too_small, "size <= maxlen", set()),
    (too_few, "sequences <= max_sequences", set()),
    (count(f.LONGEST, -10), "longest bounds every length", set()),
    (link(f.RIGHT), ADDRESSES, set()),
    (link(f.LEFT), ADDRESSES, set()),
    (moved_gap, GAPS, set()),
    (lost_bin, BINS, set()),
    (stale_bitmap, BINS, set()),
    (cycle_in_bin, BINS, set()),
    (broken_way_back, BINS, set()),
    (lost_in_space, BINS, set()),
    (count(f.ROW_HIGH, -1), "row_high bounds every extent", set()),
    (link(f.NEWER), ORDER_LIST, set()),
    (link(f.OLDER), ORDER_LIST, set()),
    (repeated_live, "the live array holds each live slot once", set()),
    (swapped_live, "a live slot knows its place", set()),
    (link(f.PLACE), "a live slot knows its place", set()),
    (unmapped, HELD, {FOUND}),
    (mapped_twice, HELD, set()),
    (unreachable, FOUND, set()),
    (put(f.IDENTITY, -77), FOUND, set()),
    (foreign_row, "a live row leads to its slot", set()),
]


@pytest.mark.parametrize("seed", range(4))
def test_a_sound_index_has_no_findings(seed: int) -> None:
    world = churned(seed, replaced=2)
    assert len(world.slots_in(f.WRITING)) == 5
    assert len(world.slots_in(f.FREE)) > 20
    assert findings_locked(world.index) == []


def test_an_empty_index_has_no_findings() -> None:
    assert findings_locked(World().index) == []


@pytest.mark.parametrize(
    ("vandal", "rule", "also"), CASES, ids=[f"{n}-{case[1]}" for n, case in enumerate(CASES)]
)
def test_each_finding_is_seen_and_named(vandal: Vandal, rule: str, also: set[str]) -> None:
    world = churned(7, replaced=1)
    assert rules(world) == set()
    vandal(world)
    assert rules(world) == {rule} | also


def test_check_changes_nothing() -> None:
    world = churned(7)
    link(f.NEWER)(world)
    before = world.memory.clone()
    findings_locked(world.index)
    assert world.memory.equal(before)
