"""A limiter over several shards, reckoned beside tables that really are granted their parts."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from shmtable import (
    ArrayMemoryTable,
    MinSize,
    Queue,
    RateLimitedError,
    SampleToInsertRatio,
    SpecError,
)
from shmtable.integrations.ray import DistributedMemoryTable
from shmtable.integrations.ray.pacing import Reckoning, split_limiter
from shmtable.limiters import Granted
from tests.integrations.ray.conftest import shards_of, until
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]


class World:
    """Three tables, and rounds of asking them as the keeper does it."""

    def __init__(self, make_table: MakeTable, limiter: SampleToInsertRatio) -> None:
        granted = split_limiter(limiter)
        self.tables = {
            name: make_table(limiter=granted, maxlen=200, max_sequences=200) for name in "abc"
        }
        self.limiter, self.reckoning = limiter, Reckoning(limiter)
        self.inserted = self.sampled = self.identity = 0

    def round(self) -> None:
        plan = self.reckoning.plan()
        self.reckoning.hear(
            {
                name: table._core.guard.run(table._core.pace.grant_locked, plan.get(name, 0))
                for name, table in self.tables.items()
            }
        )

    def add(self, name: str, length: int) -> bool:
        self.identity += 1
        try:
            sequence = small_sequence(self.identity, length)
            self.tables[name].add_sequence(self.identity, sequence, timeout_s=0)
        except RateLimitedError:
            return False
        self.inserted += length
        return True

    def sample(self, count: int, steps: int) -> bool:
        if self.reckoning.blocked(count, steps):
            return False
        self.reckoning.count(count, steps)
        self.sampled += count * steps
        return True

    @property
    def ahead(self) -> float:
        return self.inserted * self.limiter.ratio - self.sampled


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("busy", ["a", "abc"])
def test_neither_side_runs_ahead_nor_waits_for_ever(
    make_table: MakeTable, ratio: float, busy: str
) -> None:
    limiter = SampleToInsertRatio(ratio, min_size=20, error_buffer=30.0 * ratio + 20)
    world = World(make_table, limiter)
    random = np.random.default_rng(3)
    adds = samples = idle = 0
    for _ in range(1500):
        world.round()
        done = False
        if random.random() < 0.6:
            done = world.add(busy[random.integers(len(busy))], int(random.integers(1, 11)))
            adds += done
        if random.random() < 0.6:
            done = world.sample(int(random.integers(1, 9)), 2) or done
            samples += done
        assert world.ahead <= limiter.high + 1e-6
        if samples:
            assert world.ahead >= limiter.low - 1e-6
        idle = 0 if done else idle + 1
        assert idle < 60, "both sides wait for each other"
    assert adds > 100
    assert samples > 100


def test_an_add_gets_what_others_do_not_use(make_table: MakeTable) -> None:
    world = World(make_table, SampleToInsertRatio(1.0, min_size=1, error_buffer=30.0))
    world.round()
    world.round()  # each of the three has about a third
    assert not world.add("a", 25)
    for _ in range(3):
        world.round()
    assert world.add("a", 25)
    for name in "bc":  # too much is left for none of them
        assert not world.add(name, 25)


def test_below_min_size_adds_never_wait(make_table: MakeTable) -> None:
    limiter = SampleToInsertRatio(1.0, min_size=100, error_buffer=(0.0, 60.0))
    world = World(make_table, limiter)
    world.round()
    for _ in range(20):  # 100 are more than the buffer alone allows
        while not world.add("b", 5):
            world.round()
    world.round()
    assert world.sample(10, 1)


def test_what_a_lost_shard_had_not_used_others_get(make_table: MakeTable) -> None:
    world = World(make_table, SampleToInsertRatio(1.0, min_size=1, error_buffer=30.0))
    for _ in range(3):
        world.round()
    for name in "ab":
        world.reckoning.forget(name)
        del world.tables[name]
    for _ in range(3):
        world.round()
    assert world.add("c", 30)
    assert not world.add("c", 30)


def test_what_an_earlier_keeper_has_granted_counts_when_it_is_heard_of(
    make_table: MakeTable,
) -> None:
    limiter = SampleToInsertRatio(1.0, min_size=1, error_buffer=30.0)
    world = World(make_table, limiter)
    for _ in range(3):
        world.round()
    assert world.add("a", 1)
    # The keeper is restarted, and one shard is heard of before the others.
    world.reckoning, tables = Reckoning(limiter), world.tables
    world.tables = {"a": tables["a"]}
    world.round()
    ahead, before, world.tables = world.reckoning.ahead, world.inserted, tables
    world.round()
    for _ in range(20):
        world.round()
        for name in "abc":
            while world.add(name, 1):
                pass
    assert ahead + world.inserted - before <= limiter.high + 1e-6


def test_a_sample_that_could_never_be_is_refused(make_table: MakeTable) -> None:
    world = World(make_table, SampleToInsertRatio(1.0, min_size=1, error_buffer=30.0))
    world.round()
    with pytest.raises(SpecError, match="could wait for each other for ever"):
        world.reckoning.blocked(100, 1)


def test_what_cannot_be_split_is_refused() -> None:
    assert split_limiter(None) is None
    assert split_limiter(MinSize(5)) is None
    assert split_limiter(SampleToInsertRatio(2.0, 5, 100.0, "sequence")) == Granted(2.0, "sequence")
    with pytest.raises(SpecError, match="shards can be paced together by MinSize and"):
        split_limiter(Queue(5))


# -- on a cluster ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(make_distributed: Callable[..., DistributedMemoryTable]) -> DistributedMemoryTable:
    limiter = SampleToInsertRatio(2.0, min_size=50, error_buffer=200.0)
    return make_distributed("paced", limiter=limiter)


@pytest.fixture
def table(shared: DistributedMemoryTable) -> Iterator[DistributedMemoryTable]:
    shared.clear()
    yield shared
    assert shared.check() == []


def test_samples_and_adds_on_any_node_keep_pace(table: DistributedMemoryTable) -> None:
    assert "SampleToInsertRatio" in table.stats().limiter
    with pytest.raises(RateLimitedError, match="holds 0 of the 50 transitions"):
        table.sample(10, 1)
    shards = shards_of(table)
    added = [0] * len(shards)
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            identity = number * 10_000 + added[number]
            try:
                shards[number].add_sequence(identity, small_sequence(number, 10), timeout_s=0.2)
                added[number] += 1
            except RateLimitedError:
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        sampled = 0
        for _ in range(40):
            table.sample(50, 1, timeout_s=60)
            sampled += 50
            assert (
                sampled <= 2.0 * 10 * sum(added) + 100 + 2 * 20 * 2
            )  # those being counted just now
        # Nobody samples any more: adds come to wait, by themselves and close to the bound.
        until(lambda: 2.0 * 10 * sum(added) - sampled >= 250, "adds up to the bound")
        until(lambda: all(s.stats and s.stats.adds_blocked for s in table.stats().shards), "it")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    ahead = 2.0 * 10 * sum(added) - sampled
    assert ahead <= 300
    for shard in shards:
        shard.close()
    assert added[0] > 5
    assert added[1] > 5


def test_batches_ahead_wait_for_the_limiter_too(table: DistributedMemoryTable) -> None:
    table.add_sequence(1, small_sequence(1, 60))
    batches = table.batches(10, 1, ahead=3, timeout_s=0)
    count = 0
    with pytest.raises(RateLimitedError):
        while True:
            next(batches)
            count += 1
    # d may fall from 2 * 60 to the lowest, -100.
    assert count == 22


def test_batches_that_nobody_takes_are_not_counted(table: DistributedMemoryTable) -> None:
    table.add_sequence(1, small_sequence(1, 60))
    for _ in range(8):
        batches = table.batches(10, 1, ahead=4, timeout_s=30)
        next(batches)
        batches.close()
    # Of the 22 that the limiter admits.
    assert sum(1 for _ in _until_refused(table)) == 22 - 8


def _until_refused(table: DistributedMemoryTable) -> Iterator[None]:
    with suppress(RateLimitedError):
        while True:
            table.sample(10, 1)
            yield
