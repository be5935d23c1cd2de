"""Sequences that are used up: by ``max_times_sampled``, and in a queue."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    EmptyTableError,
    FifoSampleStrategy,
    NoWindowError,
    Queue,
    SampleStrategy,
    SampleToInsertRatio,
    SpecError,
    Stack,
    UniformSampleStrategy,
    WaitTimeoutError,
)
from shmtable.protocols.consume import _ranks
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]
LONG_S = 60.0


def fill(table: ArrayMemoryTable, lengths: list[int], first: int = 0) -> None:
    for identity, length in enumerate(lengths, first):
        table.add_sequence(identity, small_sequence(identity, length))


def drawn(table: ArrayMemoryTable, count: int, steps: int, **more: Any) -> list[int]:
    sample = table.sample(count, steps, **more)
    assert torn_windows(sample, steps) == []
    assert sample.points is not None
    return sample.points.identities.tolist()


def test_ranks() -> None:
    assert _ranks(np.array([5, 7, 5, 5, 7])).tolist() == [0, 0, 1, 2, 1]
    assert _ranks(np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize("sampler", [UniformSampleStrategy, FifoSampleStrategy])
@pytest.mark.parametrize("most", [1, 3])
def test_every_sequence_is_handed_out_so_often(
    make_table: MakeTable, sampler: Any, most: int
) -> None:
    table = make_table(sampler=sampler(), max_times_sampled=most, seed=5)
    fill(table, [4, 9, 6, 4, 12, 5, 7, 8, 4, 6])
    counts = np.zeros(10, int)
    for _ in range(most * 2):
        batch = np.bincount(drawn(table, 5, 3), minlength=10)
        assert batch.max() <= most
        counts += batch
        assert sorted(table.identities().tolist()) == np.flatnonzero(counts < most).tolist()
        assert table.check() == []
    assert counts.tolist() == [most] * 10
    with pytest.raises(EmptyTableError):
        table.sample(1, 1)


def test_one_sample_may_take_all_there_is(make_table: MakeTable) -> None:
    table = make_table(max_times_sampled=2, seed=1)
    fill(table, [5] * 40)
    assert sorted(drawn(table, 80, 2)) == sorted([*range(40), *range(40)])
    assert table.size() == 0


def test_the_first_of_a_distinct_sampler_come_first(make_table: MakeTable) -> None:
    table = make_table(sampler=FifoSampleStrategy(), max_times_sampled=2)
    fill(table, [5, 5, 5])
    assert drawn(table, 2, 2) == [0, 1]
    assert drawn(table, 3, 2) == [0, 1, 2]
    assert drawn(table, 1, 2) == [2]


def test_fewer_than_asked_for(make_table: MakeTable) -> None:
    table = make_table(max_times_sampled=2)
    fill(table, [5, 5, 2])
    assert table.can_sample(4, 4) and not table.can_sample(5, 4) and table.can_sample(6, 2)
    with pytest.raises(NoWindowError, match="4 of the 5 windows .* 1 of 3 sequences are shorter"):
        table.sample(5, 4)
    with pytest.raises(WaitTimeoutError, match="4 of the 5 windows"):
        table.sample(5, 4, timeout_s=0.02)
    assert table.stats().windows_sampled == 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(drawn, table, 5, 4, timeout_s=LONG_S)
        fill(table, [6], first=10)
        assert len(waiting.result(LONG_S)) == 5


@pytest.mark.parametrize("most", [0, -1, True, 2.0, "3"])
def test_bounds_that_cannot_be(make_table: MakeTable, most: Any) -> None:
    with pytest.raises(SpecError, match="max_times_sampled is"):
        make_table(max_times_sampled=most)


def test_a_queue_has_a_bound_of_its_own(make_table: MakeTable) -> None:
    with pytest.raises(SpecError, match="max_times_sampled is 2, but each .* handed out once"):
        make_table(max_times_sampled=2, sampler=FifoSampleStrategy(), limiter=Queue(3))
    make_table(max_times_sampled=1, sampler=FifoSampleStrategy(), limiter=Queue(3))
    with pytest.raises(SpecError, match="FifoSampleStrategy; .*pass_order 'oldest'"):
        make_table(sampler=FifoSampleStrategy(per_episode=False), limiter=Queue(3))


def test_counts_of_a_file_are_used_up_too(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table(sampler=FifoSampleStrategy())
    fill(table, [5, 5, 5])
    drawn(table, 2, 1)
    drawn(table, 1, 1)
    table.store(str(tmp_path / "file"))
    other = make_table(sampler=FifoSampleStrategy(), max_times_sampled=2)
    other.restore(str(tmp_path / "file"))
    assert other.identities().tolist() == [0, 1, 2]
    assert drawn(other, 3, 1) == [1, 2, 2]
    with pytest.raises(EmptyTableError):
        other.sample(1, 1)


def test_a_bound_and_a_ratio_do_not_wait_for_each_other(make_table: MakeTable) -> None:
    table = make_table(max_times_sampled=1, limiter=SampleToInsertRatio(8.0, 1, 40))
    fill(table, [1])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(table.sample, 3, 1, timeout_s=LONG_S)
        with pytest.raises(WaitTimeoutError):
            for identity in range(10, 20):
                table.add_sequence(identity, small_sequence(identity, 1), timeout_s=0.2)
        assert waiting.exception(LONG_S) is None  # there were three in time
    with pytest.raises(NoWindowError, match="add_sequence waits as well"):
        table.sample(10, 1, timeout_s=LONG_S)


class NewestSampleStrategy(SampleStrategy):
    pass_order = "newest"

    def sample(self, count: int, sequence_length: int, random: Any) -> Any:
        slots = []
        slot = self.view.newest()
        while slot:
            if self.view.length(slot) >= sequence_length:
                slots.append(slot)
            slot = self.view.older(slot)
        chosen = np.resize(np.array(slots, np.int64), count if slots else 0)
        return self.view.points(chosen, np.zeros_like(chosen))


def test_a_stack_hands_out_the_newest_first(make_table: MakeTable) -> None:
    table = make_table(sampler=NewestSampleStrategy(), limiter=Stack(4))
    fill(table, [5, 5, 5, 5])
    assert drawn(table, 3, 2) == [3, 2, 1]
    fill(table, [5, 5], first=10)
    assert drawn(table, 3, 2) == [11, 10, 0]
    assert table.size() == 0
    with pytest.raises(SpecError, match="Queue: the sampler is a NewestSampleStrategy"):
        table.limiter = Queue(4)


def test_a_second_reader_gets_the_next_ones(make_table: MakeTable) -> None:
    """Both pick the oldest; who comes later draws again, and in order."""
    table = make_table(sampler=FifoSampleStrategy(), limiter=Queue(8))
    fill(table, [5] * 8)
    core = table._core
    gather = core.storage.gather_copied
    taken: list[list[int]] = []

    def take_two_first(*arguments: Any, **more: Any) -> Any:
        if not taken:
            taken.append([])
            taken[0] = drawn(table, 2, 2)
        return gather(*arguments, **more)

    core.storage.gather_copied = take_two_first  # type: ignore[method-assign, assignment]
    assert sorted(drawn(table, 4, 2)) == [2, 3, 4, 5]
    assert taken == [[0, 1]]
    assert table.identities().tolist() == [6, 7]


class FirstSampleStrategy(UniformSampleStrategy):
    """The first windows of one and the same sequence, as long as it is there."""

    def sample(self, count: int, sequence_length: int, random: Any) -> Any:
        slots = np.repeat(self.view.live_slots().min(), count)
        return self.view.points(slots, np.zeros(count, np.int64))


def test_what_another_reader_has_used_up_is_drawn_again(make_table: MakeTable) -> None:
    table = make_table(sampler=FirstSampleStrategy(), max_times_sampled=2)
    fill(table, [5, 5])
    core = table._core
    gather = core.storage.gather_copied
    taken: list[int] = []

    def take_one_first(*arguments: Any, **more: Any) -> Any:
        if not taken:
            taken.append(-1)
            taken[:] = drawn(table, 1, 2)
        return gather(*arguments, **more)

    core.storage.gather_copied = take_one_first  # type: ignore[method-assign, assignment]
    assert drawn(table, 2, 2) == [0, 1]
    assert taken == [0]
    assert table.identities().tolist() == [1]


def test_custom_samplers_that_return_the_same_again(make_table: MakeTable) -> None:
    table = make_table(sampler=FirstSampleStrategy(), max_times_sampled=1)
    fill(table, [5] * 8)
    assert len(set(drawn(table, 6, 5))) == 6
    assert table.stats().sequences == 2
