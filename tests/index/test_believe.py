"""Numbers in a file that no table could have are refused before anything relies on them."""

from __future__ import annotations

import pytest

from shmtable.errors import ArenaDamagedError
from shmtable.index import Layout, refuse_impossible
from shmtable.index import fields as f
from shmtable.shm import header
from tests.index.worlds import HEADER_BYTES, World, churned


def layout_of(world: World, maxlen: int) -> Layout:
    return Layout.plan(
        first_byte=HEADER_BYTES,
        factor=1,
        maxlen=maxlen,
        max_sequences=maxlen,
        extra_rows=1,
        arrays=[],
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_table_is_believed(seed: int) -> None:
    world = churned(seed)
    refuse_impossible(world.words, layout_of(world, 2000), 1, "the table")
    world.index.clear_locked()
    refuse_impossible(world.words, layout_of(world, 2000), 1, "the table")


def test_an_empty_table_is_believed() -> None:
    world = World(2000)
    refuse_impossible(world.words, layout_of(world, 2000), 1, "the table")


BAD = [
    (f.RESERVED_ROWS, "reserved rows"),
    (f.RESERVED_SLOTS, "reserved slots"),
    (f.RESERVED_BUCKETS, "reserved buckets"),
    (f.BUCKETS, "buckets"),
    (f.SLOT_HIGH, "slot high"),
    (f.MAXLEN, "maxlen"),
    (f.MAX_SEQUENCES, "max sequences"),
    (f.NEXT_ORDER, "next order"),
    (f.LIVE_FROM, "live from"),
    (f.STEP_TOTAL, "step total"),
    (f.LONGEST, "longest"),
    (f.NEXT_ATTACHMENT, "next attachment"),
    (f.WINDOWS_SAMPLED, "windows sampled"),
    (f.RECOVERIES, "recoveries"),
    (f.REMOVED, "removed"),
    (f.STEPS_SAMPLED, "transitions sampled"),
    (f.ADDS_WAITED_NS, "adds waited"),
    (f.SAMPLES_WAITED_NS, "samples waited"),
    (header.TABLE_WAITS, "lock waits"),
    (header.TABLE_WAITED_NS, "lock waited"),
    (header.GROW_WAITS, "growth lock waits"),
    (header.GROW_WAITED_NS, "growth lock waited"),
]


@pytest.mark.parametrize(("word", "name"), BAD, ids=[name for _, name in BAD])
@pytest.mark.parametrize("value", [-1, -(2**63), 2**63 - 1])
def test_a_number_out_of_bounds_is_named(word: int, name: str, value: int) -> None:
    world = churned(0)
    world.words[word] = value
    with pytest.raises(ArenaDamagedError) as caught:
        refuse_impossible(world.words, layout_of(world, 2000), 1, "/some/file")
    assert str(caught.value).startswith(
        f"/some/file contradicts itself: {name} is {value}, it must be "
    )
    assert str(caught.value).endswith("; create the table again")


@pytest.mark.parametrize(
    ("word", "value"), [(f.BUCKETS, 1025), (f.MAXLEN, 3000), (f.LIVE_FROM, 10_000)]
)
def test_numbers_that_contradict_each_other_are_refused(word: int, value: int) -> None:
    world = churned(0)
    world.words[word] = value
    with pytest.raises(ArenaDamagedError, match="^/some/file contradicts itself: "):
        refuse_impossible(world.words, layout_of(world, 2000), 1, "/some/file")


def test_bounds_keep_to_what_is_reserved() -> None:
    world = churned(0)
    world.words[f.RESERVED_SLOTS] = world.words[f.SLOT_HIGH] - 1
    with pytest.raises(ArenaDamagedError, match="slot high is"):
        refuse_impossible(world.words, layout_of(world, 2000), 1, "/some/file")
