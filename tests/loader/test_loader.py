"""Loaders: what a batch looks like, when they are ready, epochs, and every table ahead of time."""

from __future__ import annotations

import itertools
import threading
import traceback
from typing import Any

import pytest
import torch

from shmtable import (
    ClosedError,
    CoverageSampleStrategy,
    EmptyTableError,
    FifoSampleStrategy,
    JointTable,
    LifoSampleStrategy,
    MemoryLoader,
    MinSize,
    NoWindowError,
    PrioritizedSampleStrategy,
    Queue,
    SampleResult,
    SampleToInsertRatio,
    SpecError,
    UniformSampleStrategy,
    WaitTimeoutError,
    WithoutReplacementSampleStrategy,
)
from tests.loader.conftest import prefetchers
from tests.loader.filled import fill, take
from tests.multiprocess.recipe import Crew, link
from tests.tables import small_sequence, torn_windows

PREFETCH = (0, 1, 3)


@pytest.mark.parametrize("prefetch", PREFETCH)
def test_a_batch_is_a_group_with_a_sample_and_its_size(make_table, prefetch: int) -> None:
    table = fill(make_table())
    loader = MemoryLoader(table, 8, 4, "batch_size", prefetch=prefetch)
    for batch in take(loader, 5):
        assert batch.keys() == {"default", "batch_size"}
        assert batch["batch_size"] == loader.size == 32
        sample = batch["default"]
        assert sample.keys() == {column.name for column in table.columns} | {"batch_size"}
        assert sample["batch_size"] == 32
        assert torn_windows(sample, 4) == []
        assert len(sample.points) == 8


def test_arguments_may_be_given_by_position_and_the_group_named(make_table) -> None:
    loader = MemoryLoader(fill(make_table()), 2, 3, "n", "replay")
    (batch,) = take(loader, 1)
    assert batch.keys() == {"replay", "n"}
    assert batch["n"] == 6


@pytest.mark.parametrize("prefetch", PREFETCH)
def test_an_epoch_has_so_many_batches_and_the_next_begins_anew(make_table, prefetch: int) -> None:
    table = fill(make_table())
    loader = MemoryLoader(table, 2, 2, "n", batches=7, prefetch=prefetch)
    assert [len(list(loader)), len(list(loader))] == [7, 7]
    assert table.stats().windows_sampled == 2 * 7 * 2  # none is made beyond the epoch


def test_batches_made_ahead_count_as_sampled(make_table) -> None:
    table = fill(make_table())
    made = threading.Semaphore(0)
    table.adaptors.append(lambda result, count, length: made.release() or result)
    iterator = iter(MemoryLoader(table, 5, 2, "n", prefetch=3))
    next(iterator)
    for _ in range(4):
        assert made.acquire(timeout=60)
    iterator.close()
    assert table.stats().windows_sampled == 4 * 5


def test_the_table_may_be_changed_between_batches_and_iterations_are_independent(
    make_table,
) -> None:
    table = fill(make_table())
    loader = MemoryLoader(table, 4, 2, "n", prefetch=2, timeout_s=60)
    one, other = iter(loader), iter(loader)
    next(one), next(other)
    assert len(prefetchers()) == 2
    one.close()
    assert len(prefetchers()) == 1
    table.clear()
    table.add_sequence(500, small_sequence(500, 30))
    assert next(itertools.islice(other, 2, None))["default"].points.identities.tolist() == [500] * 4
    other.close()


# -- readiness -----------------------------------------------------------------------------------


def test_it_is_ready_with_as_many_transitions_as_a_batch(make_table) -> None:
    table = make_table()
    loader = MemoryLoader(table, 4, 5, "n")
    table.add_sequence(1, small_sequence(1, 19))
    assert not loader.is_ready()
    table.add_sequence(2, small_sequence(2, 1))
    assert loader.is_ready()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_iterating_too_early_says_how_much_is_there_and_needed(make_table, prefetch: int) -> None:
    table = make_table()
    table.add_sequence(1, small_sequence(1, 7))
    loader = MemoryLoader(table, 8, 4, "n", prefetch=prefetch)
    wanted = r"the table holds 7 transitions, and a batch takes 32 \(8 windows of 4\); no other pro"
    with pytest.raises(WaitTimeoutError, match=wanted) as caught:
        next(iter(loader))
    error: Any = caught.value
    assert (error.transitions, error.needed) == (7, 32)
    with pytest.raises(WaitTimeoutError, match=r"waited 0.01 s: the table holds 7"):
        loader.wait_until_ready(0.01)
    assert prefetchers() == []


def test_enough_transitions_in_sequences_that_are_too_short_are_not_enough(make_table) -> None:
    loader = MemoryLoader(fill(make_table(), 30, 3), 2, 4, "n")
    assert not loader.is_ready()
    with pytest.raises(WaitTimeoutError, match="gives no sample of 8 now .*too short"):
        loader.wait_until_ready(0)


def test_a_limiter_says_itself_when(make_table) -> None:
    table = make_table(limiter=MinSize(50))
    loader = MemoryLoader(table, 2, 2, "n")
    fill(table, 4, 10)
    with pytest.raises(WaitTimeoutError, match="its limiter holds them back"):
        loader.wait_until_ready(0)
    table.add_sequence(99, small_sequence(99, 10))
    assert loader.is_ready()
    # Full of sequences shorter than the window: it would never have as many transitions.
    queue = make_table(limiter=Queue(2), sampler=FifoSampleStrategy(), pad="zero")
    fill(queue, 2, 3)
    assert MemoryLoader(queue, 2, 5, "n").is_ready()


def _add_slowly(table: Any) -> None:
    link().hear()
    for identity in range(10):
        table.add_sequence(identity, small_sequence(identity, 10))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_warming_up_waits_for_another_process(make_table, prefetch: int) -> None:
    table = make_table()
    with Crew("fork") as crew:
        writer = crew.add(_add_slowly, table)
        crew.go()
        loader = MemoryLoader(table, 10, 10, "n", batches=3, prefetch=prefetch, timeout_s=60)
        assert not loader.is_ready()
        writer.tell("go on")
        assert len(list(loader)) == 3
        crew.results()


def _die(table: Any) -> None:
    table.add_sequence(1, small_sequence(1, 10))
    link().tell("added")
    link().hear()


def test_warming_up_ends_when_nobody_is_left_who_could_add(make_table) -> None:
    table = make_table()
    with Crew("fork") as crew:
        writer = crew.add(_die, table)
        crew.go()
        assert writer.hear() == "added"
        writer.kill()
        writer.join()
        crew.dismiss(writer)
        with pytest.raises(WaitTimeoutError, match="holds 10 .* 100 .*; every other .* has died"):
            MemoryLoader(table, 10, 10, "n").wait_until_ready(None)


# -- every table, ahead of time ------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler",
    [
        UniformSampleStrategy,
        PrioritizedSampleStrategy,
        CoverageSampleStrategy,
        FifoSampleStrategy,
        LifoSampleStrategy,
        WithoutReplacementSampleStrategy,
    ],
)
def test_every_sampler_ahead_of_time(make_table, sampler: Any) -> None:
    table = fill(make_table(sampler=sampler()))
    for batch in take(MemoryLoader(table, 6, 3, "n", prefetch=2), 10):
        assert torn_windows(batch["default"], 3) == []


def test_priorities_can_be_given_to_batches_made_ahead(make_table) -> None:
    table = fill(make_table(sampler=PrioritizedSampleStrategy()))
    for batch in take(MemoryLoader(table, 6, 3, "n", prefetch=3), 8):
        sample = batch["default"]
        assert sample.weights.shape == (6,)
        assert table.update_priorities(sample.points, torch.rand(6)) == 6
    (batch,) = take(MemoryLoader(table, 6, 3, "n", prefetch=3), 1)
    table.clear()
    assert table.update_priorities(batch["default"].points, torch.rand(6)) == 0


def _add_in_order(table: Any, sequences: int) -> None:
    for identity in range(sequences):
        table.add_sequence(identity, small_sequence(identity, 5), timeout_s=60)


def test_a_queue_is_emptied_in_order_and_each_comes_once(make_table) -> None:
    table = make_table(sampler=FifoSampleStrategy(), limiter=Queue(4))
    with Crew("fork") as crew:
        crew.add(_add_in_order, table, 60)
        crew.go()
        loader = MemoryLoader(table, 2, 5, "n", batches=30, prefetch=3, timeout_s=60)
        seen = [batch["default"].points.identities.tolist() for batch in loader]
        crew.results()
    assert list(itertools.chain(*seen)) == list(range(60))
    assert table.size() == 0


def test_a_break_while_the_thread_waits_for_data_ends_it(make_table) -> None:
    table = make_table(sampler=FifoSampleStrategy(), limiter=Queue(4))
    fill(table, 2, 5)
    for _ in MemoryLoader(table, 2, 5, "n", prefetch=2, timeout_s=None):
        break  # the thread waits for ever for the third sequence
    assert prefetchers() == []
    fill(table, 2, 5)  # and takes nothing of what comes later
    assert table.size() == 10


def test_a_ratio_is_kept_by_batches_made_ahead(make_table) -> None:
    limiter = SampleToInsertRatio(ratio=1.0, min_size=100, error_buffer=100)
    table = fill(make_table(limiter=limiter), 20, 10)
    loader = MemoryLoader(table, 10, 5, "n", prefetch=2, timeout_s=0.05)
    batches = []
    with pytest.raises(WaitTimeoutError, match="limiter holds sample back for 0.05 s"):
        for batch in loader:
            batches.append(batch)
    # inserted * ratio - sampled may fall to min_size * ratio - error_buffer = 0.
    assert len(batches) * 50 == 200


def test_errors_of_the_thread_come_to_the_loop(make_table) -> None:
    table = fill(make_table())

    def breaks(result: SampleResult, count: int, length: int) -> SampleResult:
        raise RuntimeError("an adaptor of mine")

    iterator = iter(MemoryLoader(table, 2, 2, "n", prefetch=1))
    next(iterator)
    table.adaptors.append(breaks)
    with pytest.raises(RuntimeError, match="of mine") as caught:
        for _ in iterator:
            pass
    assert "in breaks" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert prefetchers() == []


def test_closing_the_table_ends_the_loop(make_table) -> None:
    table = fill(make_table())
    with pytest.raises(ClosedError):
        for _ in MemoryLoader(table, 2, 2, "n", prefetch=2):
            table.close()


def test_emptying_the_table_is_told_at_once_without_a_timeout(make_table) -> None:
    table = fill(make_table())
    with pytest.raises(EmptyTableError):
        for _ in MemoryLoader(table, 2, 2, "n", prefetch=2):
            table.clear()
    fill(table, 20, 1)
    with pytest.raises(NoWindowError):
        take(MemoryLoader(_Foreign(table), 2, 2, "n"), 1)


class _Foreign:
    """A table of somebody else's: ``sample`` and ``size``, and no word about waiting."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def size(self) -> int:
        return int(self._table.size())

    def sample(self, count: int, sequence_length: int) -> SampleResult:
        result: SampleResult = self._table.sample(count, sequence_length)
        return result


@pytest.mark.parametrize("prefetch", PREFETCH)
def test_any_table_with_sample_and_size_will_do(make_table, prefetch: int) -> None:
    table: Any = _Foreign(fill(make_table()))
    assert len(take(MemoryLoader(table, 2, 2, "n", prefetch=prefetch), 4)) == 4
    with pytest.raises(WaitTimeoutError, match="a batch takes 400"):
        MemoryLoader(table, 100, 4, "n").wait_until_ready(0)


@pytest.mark.parametrize("prefetch", PREFETCH)
def test_joint_tables_are_tables(make_table, prefetch: int) -> None:
    offline, online = fill(make_table()), make_table()
    joint: Any = JointTable([(0.5, offline), (0.5, online)])
    loader = MemoryLoader(joint, 4, 2, "n", prefetch=prefetch)
    assert not loader.is_ready()
    fill(online, 1, 10)
    assert loader.is_ready()
    for batch in take(loader, 3):
        assert batch["default"].sources.tolist() == [0, 0, 1, 1]


# -- elsewhere than on the CPU -------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", PREFETCH)
def test_batches_are_delivered_on_the_device(make_table, prefetch: int) -> None:
    table = fill(make_table(sampler=PrioritizedSampleStrategy()))
    table.adaptors.append(_nest)
    for batch in take(MemoryLoader(table, 2, 2, "n", prefetch=prefetch, device="meta"), 3):
        sample = batch["default"]
        assert {sample[name].device.type for name in ("obs", "actions")} == {"meta"}
        assert sample["nested"]["obs"].device.type == sample["listed"][0].device.type == "meta"
        assert sample.weights.device.type == "meta"


def _nest(result: SampleResult, count: int, length: int) -> SampleResult:
    result["nested"] = {"obs": result["obs"]}
    result["listed"] = [result["obs"], "text"]
    return result


# -- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 1, "n"), "rollout_count is 0"),
        ((1, 0, "n"), "rollout_length is 0"),
        ((1, 1, "obs"), "size_key is 'obs', a column's name"),
        ((1, 1, "n", "n"), "size_key and data_group are both 'n'"),
    ],
)
def test_arguments_that_cannot_be(make_table, arguments: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        MemoryLoader(make_table(), *arguments)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batches": 0}, "batches is 0"),
        ({"prefetch": -1}, "prefetch is -1"),
        ({"prefetch": 1.5}, "prefetch is 1.5"),
        ({"device": "moon"}, "device is 'moon'"),
    ],
)
def test_options_that_cannot_be(make_table, options: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        MemoryLoader(make_table(), 1, 1, "n", **options)
