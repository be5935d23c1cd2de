"""First in, first out: the exact order of sampling and of ejection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shmtable import ArrayMemoryTable, Column, FifoEjectionStrategy, FifoSampleStrategy
from tests.strategies.chance import LEAST_P, draw, p_value

MakeTable = Callable[..., ArrayMemoryTable]


def table_with(
    make_table: MakeTable,
    sampler: FifoSampleStrategy,
    lengths: list[int],
    pad: str | None = None,
) -> ArrayMemoryTable:
    table = make_table(
        columns=[Column("actions", (), "int32")],
        sampler=sampler,
        ejector=FifoEjectionStrategy(),
        pad=pad,
        seed=3,
    )
    for identity, length in enumerate(lengths):
        table.add_sequence(identity, {"actions": np.arange(length)})
    return table


def test_one_window_of_each_sequence_oldest_first(make_table: MakeTable) -> None:
    table = table_with(make_table, FifoSampleStrategy(), [5, 9, 4, 7])
    assert [identity for identity, _ in draw(table, 3, 4)] == [0, 1, 2]


def test_it_starts_over_when_all_have_had_their_turn(make_table: MakeTable) -> None:
    table = table_with(make_table, FifoSampleStrategy(), [5, 9, 4])
    assert [identity for identity, _ in draw(table, 8, 4)] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_each_call_begins_with_the_oldest(make_table: MakeTable) -> None:
    table = table_with(make_table, FifoSampleStrategy(), [5, 9, 4])
    assert [identity for _ in range(3) for identity, _ in draw(table, 2, 1)] == [0, 1] * 3


def test_too_short_sequences_are_passed_over(make_table: MakeTable) -> None:
    table = table_with(make_table, FifoSampleStrategy(), [5, 2, 9, 3, 7])
    assert [identity for identity, _ in draw(table, 4, 4)] == [0, 2, 4, 0]


def test_the_order_is_that_of_adding_after_removals_and_reuse(make_table: MakeTable) -> None:
    table = table_with(make_table, FifoSampleStrategy(), [5, 5, 5, 5])
    table.remove(1)
    table.remove(0)
    for identity in (9, 1, 8):
        table.add_sequence(identity, {"actions": np.arange(5)})
    assert [identity for identity, _ in draw(table, 5, 5)] == [2, 3, 9, 1, 8]


def test_offsets_within_a_sequence_are_uniform(make_table: MakeTable) -> None:
    table = table_with(make_table, FifoSampleStrategy(), [10, 14])
    drawn = draw(table, 8000, 4)
    for identity, offsets in ((0, range(7)), (1, range(11))):
        assert p_value([o for i, o in drawn if i == identity], offsets) > LEAST_P


def test_windows_of_one_sequence_follow_each_other(make_table: MakeTable) -> None:
    sampler = FifoSampleStrategy(per_episode=False, random_offset=False)
    table = table_with(make_table, sampler, [10, 3, 7])
    one_pass = [(0, 0), (0, 3), (0, 6), (1, 0), (2, 0), (2, 3)]
    assert draw(table, 6, 3) == one_pass
    assert draw(table, 4, 3) == one_pass[:4]
    assert draw(table, 8, 3) == one_pass + one_pass[:2]


def test_as_many_windows_as_fit_each_at_a_random_offset(make_table: MakeTable) -> None:
    sampler = FifoSampleStrategy(per_episode=False, random_offset=True)
    table = table_with(make_table, sampler, [10, 3, 7])
    drawn = draw(table, 6000, 3)
    assert [identity for identity, _ in drawn[:6]] == [0, 0, 0, 1, 2, 2]
    assert p_value([o for i, o in drawn if i == 0], range(8)) > LEAST_P
    assert p_value([o for i, o in drawn if i == 2], range(5)) > LEAST_P


@pytest.mark.parametrize("per_episode", [True, False])
@pytest.mark.parametrize("random_offset", [True, False])
def test_padded_sequences_have_their_turn_with_one_window(
    make_table: MakeTable, per_episode: bool, random_offset: bool
) -> None:
    sampler = FifoSampleStrategy(per_episode, random_offset)
    table = table_with(make_table, sampler, [2, 5, 1], pad="zero")
    assert draw(table, 3, 5) == [(0, 0), (1, 0), (2, 0)]


def test_the_oldest_go_first_and_only_as_many_as_needed(make_table: MakeTable) -> None:
    table = table_with(make_table, FifoSampleStrategy(), [400, 100, 300, 200])
    for identity, length, left in (
        (4, 1, [1, 2, 3, 4]),
        (5, 399, [1, 2, 3, 4, 5]),
        (6, 101, [3, 4, 5, 6]),
        (7, 1000, [7]),
    ):
        table.add_sequence(identity, {"actions": np.zeros(length, np.int32)})
        assert table.identities().tolist() == left


def test_replacing_makes_a_sequence_the_newest(make_table: MakeTable) -> None:
    table = make_table(columns=[Column("actions", (), "int32")], on_duplicate="replace", maxlen=20)
    for identity in (1, 2, 3, 1):
        table.add_sequence(identity, {"actions": np.zeros(6, np.int32)})
    table.add_sequence(4, {"actions": np.zeros(8, np.int32)})
    assert table.identities().tolist() == [3, 1, 4]
