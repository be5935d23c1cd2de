"""Last in, first out: the exact order of sampling and of ejection."""

from __future__ import annotations

import pytest

from shmtable import ArrayMemoryTable, LifoEjectionStrategy, LifoSampleStrategy
from tests.strategies.chance import LEAST_P, draw, p_value
from tests.strategies.prioritized import MakeTable, add, narrow


def table_with(
    make_table: MakeTable, sampler: LifoSampleStrategy, lengths: list[int], pad: str | None = None
) -> ArrayMemoryTable:
    table = narrow(make_table, sampler=sampler, pad=pad)
    for identity, length in enumerate(lengths):
        add(table, identity, length)
    return table


def test_one_window_of_each_sequence_newest_first(make_table: MakeTable) -> None:
    table = table_with(make_table, LifoSampleStrategy(), [5, 9, 3, 7])
    assert [identity for identity, _ in draw(table, 7, 4)] == [3, 1, 0, 3, 1, 0, 3]


def test_the_order_is_that_of_adding_after_removals_and_reuse(make_table: MakeTable) -> None:
    table = table_with(make_table, LifoSampleStrategy(), [5, 5, 5, 5])
    table.remove(1)
    table.remove(3)
    for identity in (9, 1, 8):
        add(table, identity, 5)
    assert [identity for identity, _ in draw(table, 5, 5)] == [8, 1, 9, 2, 0]


def test_windows_follow_each_other_backwards_from_the_end(make_table: MakeTable) -> None:
    sampler = LifoSampleStrategy(per_episode=False, random_offset=False)
    table = table_with(make_table, sampler, [4, 11, 2])
    expected = [(1, 8), (1, 5), (1, 2), (0, 1), (1, 8)]
    assert draw(table, 5, 3) == expected


@pytest.mark.parametrize("pad", ["zero", "edge"])
def test_short_ones_have_one_window_where_the_table_pads(make_table: MakeTable, pad: str) -> None:
    sampler = LifoSampleStrategy(per_episode=False, random_offset=False)
    table = table_with(make_table, sampler, [7, 2], pad)
    assert draw(table, 4, 3) == [(1, 0), (0, 4), (0, 1), (1, 0)]


def test_random_offsets_are_equally_likely(make_table: MakeTable) -> None:
    table = table_with(make_table, LifoSampleStrategy(), [8])
    assert p_value(draw(table, 2000, 3), [(0, offset) for offset in range(6)]) > LEAST_P


def test_the_newest_are_ejected_first(make_table: MakeTable) -> None:
    table = narrow(make_table, maxlen=20, ejector=LifoEjectionStrategy())
    for identity, length in enumerate([6, 5, 4, 3]):
        add(table, identity, length)
    add(table, 4, 2)
    assert table.identities().tolist() == [0, 1, 2, 3, 4]
    add(table, 5, 7)
    assert table.identities().tolist() == [0, 1, 5]
