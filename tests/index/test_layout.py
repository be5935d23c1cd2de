"""Where the regions of an arena lie."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from shmtable.index import Extra, Layout
from shmtable.index.layout import BLOCK, PAGE, bucket_count, row_limit

COLUMNS = [
    Extra("column/obs", "row", 17 * 4),
    Extra("column/done", "row", 1),
    Extra("tag/kind", "slot", 8),
    Extra("sampler/priority", "row", 4),
]


def plan(**changes: Any) -> Layout:
    options: dict[str, Any] = {
        "first_byte": 3 * PAGE,
        "factor": 16,
        "maxlen": 1000,
        "max_sequences": 300,
        "extra_rows": 1,
        "arrays": COLUMNS,
    }
    return Layout.plan(**{**options, **changes})


@pytest.mark.parametrize("maxlen", [1, 7, 1000, 10**7])
def test_regions_follow_each_other_on_pages_of_their_own(maxlen: int) -> None:
    layout = plan(maxlen=maxlen, max_sequences=min(maxlen, 300))
    regions = sorted(layout.regions.values(), key=lambda region: region.offset)
    assert regions[0].offset == 3 * PAGE
    for before, after in itertools.pairwise(regions):
        assert before.offset + before.bytes <= after.offset < before.offset + before.bytes + PAGE
    assert all(region.offset % PAGE == 0 for region in regions)
    assert regions[-1].offset + regions[-1].bytes <= layout.total_bytes


def test_a_sequence_of_one_step_each_has_room_for_its_extra_rows() -> None:
    # As many sequences as may be, each the shortest, and one more to replace one of them.
    assert row_limit(1000, 1000, 2) >= 1000 * 3 + 3


def test_capacities_have_the_room_to_grow_in_them() -> None:
    small, large = plan(factor=1), plan(factor=16)
    assert large.capacity_rows == row_limit(16_000, 4_800, 1) > 15 * small.capacity_rows
    assert large.capacity_slots > 4_800
    assert 0 <= large.regions["column/obs"].capacity - large.capacity_rows < BLOCK
    assert 0 <= large.regions["tag/kind"].capacity - large.capacity_slots < BLOCK
    assert large.regions["buckets"].capacity >= bucket_count(large.capacity_slots)


def test_the_same_description_gives_the_same_layout() -> None:
    # An attaching process computes it again.
    assert plan() == plan()
    assert plan(extra_rows=2) != plan()


def test_spans_are_the_bytes_of_new_items_in_each_region() -> None:
    layout = plan()
    spans = layout.spans("row", 10, 25)
    regions = [r for r in layout.regions.values() if r.per == "row"]
    assert spans == [(r.offset + 10 * r.item_bytes, 15 * r.item_bytes) for r in regions]
    assert {"row_slot", "column/obs", "column/done", "sampler/priority"} == {
        r.name for r in regions
    }
    assert layout.spans("slot", 5, 5) == []
    assert layout.item_bytes("row") == sum(r.item_bytes for r in regions)


def test_spans_of_neighbouring_items_meet() -> None:
    layout = plan()
    first, second = layout.spans("slot", 0, 7), layout.spans("slot", 7, 9)
    assert [offset + length for offset, length in first] == [offset for offset, _ in second]


def test_regions_needed_from_the_start_are_reserved_at_once() -> None:
    layout = plan()
    once = [r for r in layout.regions.values() if r.per == "once"]
    assert "bins" in {r.name for r in once}
    assert layout.once() == [(r.offset, r.bytes) for r in once]


def test_blocks_are_those_that_new_items_complete() -> None:
    layout, size = plan(), 4096 * 4
    for per, rows in (("row", 5000), ("slot", 900)):
        regions = [r for r in layout.regions.values() if r.per == per]
        seen: dict[int, int] = {}
        marks = [0, 1, 7, 300, 301, rows // 2, rows - 1, rows]
        for first, last in itertools.pairwise(marks):
            for offset, count in layout.blocks(per, first, last, size):
                assert offset % size == count % size == 0
                for block in range(offset, offset + count, size):
                    assert block not in seen
                    seen[block] = last
        # Each as soon as all of it is there, and none that has anything else in it.
        expected = {}
        for region in regions:
            begin = region.offset
            for block in range(-(-begin // size) * size, begin + rows * region.item_bytes, size):
                for last in marks[1:]:
                    if begin + -(-last // region.every) * region.item_bytes >= block + size:
                        expected[block] = last
                        break
        assert seen == expected != {}
