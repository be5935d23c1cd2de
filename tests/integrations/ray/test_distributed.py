"""A distributed table on a cluster of three nodes, each with a shard."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import gc
import os
import pickle
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shmtable import (
    ArenaInUseError,
    ArenaNotFoundError,
    ClosedError,
    DuplicateIdentityError,
    EmptyTableError,
    FifoEjectionStrategy,
    FifoSampleStrategy,
    FileDamagedError,
    MemoryLoader,
    MemoryTable,
    NoWindowError,
    PriorityError,
    SpecError,
    UniformSampleStrategy,
    UnknownIdentityError,
    WaitTimeoutError,
)
from shmtable.integrations.ray import DistributedMemoryTable
from tests.integrations.ray.conftest import fill, shards_of
from tests.strategies.chance import LEAST_P, p_value
from tests.tables import small_columns, small_sequence, torn_windows

UNEQUAL = [[3, 7], [20] * 8, [1, 1, 50]]


@pytest.fixture(scope="module")
def shared(make_distributed: Callable[..., DistributedMemoryTable]) -> DistributedMemoryTable:
    return make_distributed("plain")


@pytest.fixture
def table(shared: DistributedMemoryTable) -> Iterator[DistributedMemoryTable]:
    """Made once for all tests, empty for each; sound afterwards."""
    shared.clear()
    yield shared
    assert shared.check() == []


def add_here(table: DistributedMemoryTable, identity: int) -> tuple[str, int, int]:
    """What a task does with the table that it was given."""
    table.add_sequence(identity, small_sequence(identity, 10))
    batch = table.sample(4, 3)
    assert torn_windows(batch, 3) == []
    return ray.get_runtime_context().get_node_id(), len(table), os.getpid()


def test_tasks_on_any_node_use_the_table_they_are_given(table: DistributedMemoryTable) -> None:
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    task = ray.remote(num_cpus=0)(add_here)
    for number, node in enumerate(nodes):
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        found = ray.get(task.options(scheduling_strategy=there).remote(table, number))
        assert found[:2] == (node, 10 * (number + 1))
        assert found[2] != os.getpid()
    # Each has written into its own node's shard, and nowhere else.
    sizes = {shard.node: shard.stats.transitions for shard in table.stats().shards if shard.stats}
    assert sizes == dict.fromkeys(nodes, 10)
    assert sorted(table.identities().tolist()) == [0, 1, 2]


def test_it_is_a_memory_table(table: DistributedMemoryTable) -> None:
    plain: MemoryTable = table
    plain.add_sequence(1, small_sequence(1, 12))
    assert plain.size() == len(table) == 12
    assert not plain.full()
    assert torn_windows(plain.sample(5, 3), 3) == []
    loader = MemoryLoader(table, 4, 3, "size", batches=2, prefetch=1)
    batches = list(loader)
    assert [batch["default"]["obs"].shape for batch in batches] == [(12, 3)] * 2


def test_a_batch_is_as_a_table_gives_it(table: DistributedMemoryTable) -> None:
    fill(table, UNEQUAL)
    with shards_of(table)[0] as one:
        like = one.sample(40, 3)
    batch = table.sample(40, 3)
    assert {name: (column.shape, column.dtype) for name, column in batch.items()} == {
        name: (column.shape, column.dtype) for name, column in like.items()
    }
    assert torn_windows(batch, 3) == []
    assert batch.points.identities.tolist() == batch["obs"].view(40, 3, 3)[:, 0, 0].tolist()
    assert batch.weights is None
    batch["obs"].zero_()  # a copy, which may be changed
    assert torn_windows(table.sample(40, 3), 3) == []


def test_every_window_of_all_shards_is_equally_likely(table: DistributedMemoryTable) -> None:
    fill(table, UNEQUAL)
    table.reseed(11)
    for steps in (1, 3):
        expected = [
            (100 * number + place, offset)
            for number, several in enumerate(UNEQUAL)
            for place, length in enumerate(several)
            for offset in range(length - steps + 1)
        ]
        drawn: list[tuple[int, int]] = []
        for _ in range(12):
            points = table.sample(1000, steps).points
            drawn += zip(points.identities.tolist(), points.offsets.tolist(), strict=True)
        assert p_value(drawn, expected) > LEAST_P


def test_what_is_asked_after_a_change_is_as_likely_as_what_is_there(
    table: DistributedMemoryTable,
) -> None:
    fill(table, [[10], [10], [10]])
    table.sample(10, 2)  # all offer the same, as far as this process knows
    fill_more = shards_of(table)
    with fill_more[1] as shard:
        for identity in range(500, 509):
            shard.add_sequence(identity, small_sequence(identity, 10))
    for other in fill_more:
        other.close()
    before = table.stats().windows_redrawn
    batch = table.sample(2000, 2)
    assert table.stats().windows_redrawn > before
    found = np.bincount((batch.points.identities >= 500).astype(int), minlength=2) / 2000
    assert abs(found[1] - 9 / 12) < 0.05


def test_batches_asked_for_ahead(table: DistributedMemoryTable) -> None:
    fill(table, UNEQUAL)
    batches = table.batches(20, 2, ahead=3)
    for _ in range(10):
        assert torn_windows(next(batches), 2) == []
    batches.close()


def test_nothing_to_sample(table: DistributedMemoryTable) -> None:
    with pytest.raises(EmptyTableError, match="all 3 shards are empty; add a sequence first"):
        table.sample(2, 3)
    assert not table.can_sample(2, 3)
    with pytest.raises(WaitTimeoutError, match="waited 0.1 s for something to sample: all 3"):
        table.sample(2, 3, timeout_s=0.1)
    table.add_sequence(1, small_sequence(1, 5))
    with pytest.raises(NoWindowError, match="had 5 transitions; ask for shorter") as caught:
        table.sample(2, 6)
    assert caught.value.longest == 5
    assert table.can_sample(2, 5)
    with pytest.raises(SpecError, match="count is 0"):
        table.sample(0, 5)


def test_single_sequences(table: DistributedMemoryTable) -> None:
    fill(table, [[4], [5], [6]])
    found = table.sequence(100)
    assert found["actions"].tolist() == [100 * 1000 + step for step in range(5)]
    found["actions"].zero_()
    table.remove(100)
    with pytest.raises(UnknownIdentityError, match="identity 100 is in no shard"):
        table.sequence(100)
    with pytest.raises(UnknownIdentityError):
        table.remove(100)
    assert sorted(table.identities().tolist()) == [0, 200]


def test_an_identity_is_refused_twice_on_a_node_and_found_twice_over_nodes(
    shared: DistributedMemoryTable,
) -> None:
    shared.clear()
    shared.add_sequence(7, small_sequence(7, 4))
    with pytest.raises(DuplicateIdentityError):
        shared.add_sequence(7, small_sequence(7, 4))
    shards = shards_of(shared)
    for shard in shards:
        if shard.size() == 0:
            shard.add_sequence(7, small_sequence(7, 4))
            break
    for shard in shards:
        shard.close()
    (finding,) = shared.check()
    assert str(finding) == "identities are unique: identity 7 is in 2 shards"
    shared.clear()


def test_writers_make_up_identities_that_nobody_else_has(table: DistributedMemoryTable) -> None:
    found = []
    for _ in range(2):
        with table.writer() as writer:
            for _ in range(3):
                for step in range(4):
                    writer.append(obs=np.full(3, step, np.float32), actions=step, rewards=0.0)
                found += writer.end(obs=np.zeros(3, np.float32))
    with table.vector_writer(2, autoreset="next_step") as vector:
        assert vector is not None
    assert len(set(found)) == 6
    assert max(found) < -(2**61)
    assert sorted(table.identities().tolist()) == sorted(found)


def test_a_handle_is_small_and_asks_for_nothing_until_used(table: DistributedMemoryTable) -> None:
    sent = pickle.dumps(table)
    assert len(sent) < 500
    other = pickle.loads(sent)
    assert other._keeper_ is None
    other.add_sequence(3, small_sequence(3, 5))
    assert table.size() == 5
    other.close()
    with pytest.raises(ClosedError):
        other.sample(1, 1)
    assert table.size() == 5  # only who made it ends it


def test_attached_by_name(table: DistributedMemoryTable) -> None:
    with DistributedMemoryTable.attach(table.name) as other:
        other.add_sequence(3, small_sequence(3, 5))
        assert [column.name for column in other.columns] == [c.name for c in small_columns()]
        assert other.length_key == "actions"
        assert other.layout == "flat"
    with pytest.raises(ArenaNotFoundError, match="no distributed table 'nobody' on this cluster"):
        DistributedMemoryTable.attach("nobody")


def test_what_cannot_be_made_is_refused(
    table: DistributedMemoryTable, make_distributed: Callable[..., DistributedMemoryTable]
) -> None:
    with pytest.raises(ArenaInUseError, match="is there already; attach to it"):
        make_distributed("plain")
    with pytest.raises(SpecError, match="sampler is a FifoSampleStrategy"):
        make_distributed("x", sampler=FifoSampleStrategy())
    with pytest.raises(SpecError, match="directory is no option of a distributed table's shards"):
        make_distributed("x", directory="here")
    with pytest.raises(SpecError, match="maxlen is 0"):
        make_distributed("x", maxlen=0)
    with pytest.raises(SpecError, match="deadline_s is 0"):
        make_distributed("x", deadline_s=0)
    with pytest.raises(SpecError, match="has 60 letters|at most 40"):
        make_distributed("x" * 60)
    with pytest.raises(SpecError, match="nodes is \\['none'\\], none of which is alive; give ids"):
        make_distributed("x", nodes=["none"])


def test_it_ends_with_its_program_and_not_with_an_object(cluster: Any) -> None:
    name = f"test{os.getpid()}-object"

    def make() -> weakref.ref[DistributedMemoryTable]:
        table = DistributedMemoryTable(
            *small_columns(),
            name=name,
            maxlen=100,
            sampler=UniformSampleStrategy(),
            ejector=FifoEjectionStrategy(),
            nodes=[ray.get_runtime_context().get_node_id()],
        )
        table.add_sequence(1, small_sequence(1, 10))
        return weakref.ref(table)

    made = make()
    gc.collect()
    owner = made()
    assert owner is not None
    with DistributedMemoryTable.attach(name) as other:
        assert other.size() == 10
    owner.close()
    del owner
    gc.collect()
    assert made() is None


def test_whoever_holds_a_table_that_has_ended_is_told_so(
    make_distributed: Callable[..., DistributedMemoryTable],
) -> None:
    table = make_distributed("ended", nodes=[ray.get_runtime_context().get_node_id()])
    table.add_sequence(1, small_sequence(1, 10))
    with DistributedMemoryTable.attach(table.name, deadline_s=0.5) as other:
        other.sample(4, 2)
        other.writer().close()
        table.close()
        with pytest.raises(ArenaNotFoundError, match="the distributed table has ended"):
            other.sample(4, 2, timeout_s=None)
        with pytest.raises(ArenaNotFoundError, match="make it anew"):
            other.size()
        with pytest.raises(ArenaNotFoundError, match="make it anew"):
            other.add_sequence(2, small_sequence(2, 10))


def test_priorities_need_a_sampler_that_keeps_them(table: DistributedMemoryTable) -> None:
    fill(table, UNEQUAL)
    batch = table.sample(4, 1)
    assert not table.keeps_priorities
    with pytest.raises(PriorityError, match="the shards keep no priorities"):
        table.update_priorities(batch.points, torch.ones(4))


def test_values_are_written_back_to_their_shards(table: DistributedMemoryTable) -> None:
    fill(table, [[4], [4], [4]])
    batch = table.sample(200, 4)  # every sequence, and again and again
    rewards = batch.points.identities[:, None] * 10.0 + np.arange(4)
    assert table.update(batch.points, "rewards", rewards) == 200
    for identity in (0, 100, 200):
        expected = [identity * 10.0 + step for step in range(4)]
        assert table.sequence(identity)["rewards"].tolist() == expected
    table.remove(100)
    still = int((batch.points.identities != 100).sum())
    assert table.update(batch.points, "rewards", rewards) == still


def test_files_one_for_each_shard(
    table: DistributedMemoryTable,
    tmp_path: Path,
    make_distributed: Callable[..., DistributedMemoryTable],
) -> None:
    fill(table, UNEQUAL)
    before = {i: table.sequence(i)["obs"].tolist() for i in table.identities().tolist()}
    path = tmp_path / "kept"
    assert table.store(path)
    assert len(list(tmp_path.glob("kept-*.zip"))) == 3
    table.clear()
    assert table.restore(path)
    assert {i: table.sequence(i)["obs"].tolist() for i in table.identities().tolist()} == before
    table.store(path)  # anew, and the files before are gone
    assert len(list(tmp_path.glob("kept-*.zip"))) == 3
    # A damaged file changes nothing, in no shard.
    table.clear()
    fill(table, [[2], [2], [2]])
    victim = sorted(tmp_path.glob("kept-*.zip"))[1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(FileDamagedError, match="has been changed or replaced"):
        table.restore(path)
    assert sorted(table.identities().tolist()) == [0, 100, 200]


def test_stats_say_how_each_shard_is(table: DistributedMemoryTable) -> None:
    fill(table, UNEQUAL)
    table.sample(10, 1)
    stats = table.stats()
    assert [shard.state for shard in stats.shards] == ["ready"] * 3
    assert stats.transitions == sum(map(sum, UNEQUAL)) == table.size()
    assert stats.sequences == 13
    assert stats.maxlen == 3000
    assert stats.shards_lost == stats.transitions_lost == stats.replies_late == 0


def test_what_the_nodes_hold_is_seen_by_the_command_line(
    table: DistributedMemoryTable,
) -> None:
    fill(table, UNEQUAL)
    from shmtable import Onlooker

    seen = 0
    for shard in table.stats().shards:
        with Onlooker(shard.name) as onlooker:
            seen += onlooker.stats().transitions
    assert seen == table.size()


def test_a_learner_slower_than_the_deadline_gets_what_it_asked_for(
    table: DistributedMemoryTable,
) -> None:
    fill(table, [[50] * 4] * 3)
    with DistributedMemoryTable.attach(table.name, deadline_s=2.0) as other:
        # Answers of 200 KB, which lie on their shards' nodes until somebody asks for them.
        batches = other.batches(4000, 4, ahead=2)
        next(batches)
        time.sleep(2.5)  # a long training step
        batch = next(batches)
        assert len(batch.points.tables) == 3
        assert torn_windows(batch, 4) == []
        assert other.stats().replies_late == 0
