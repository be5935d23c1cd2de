"""Shards, nodes, writers and learners that are killed, and shards that are slow."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import logging
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import ray

from shmtable import ArrayMemoryTable, FifoEjectionStrategy, UniformSampleStrategy
from shmtable.demo.nodes import SimulatedNodes
from shmtable.integrations.ray import DistributedMemoryTable
from shmtable.integrations.ray.local import is_current
from shmtable.integrations.ray.shard import drop
from shmtable.shm import leftovers
from tests.integrations.ray.conftest import fill, until
from tests.tables import small_columns, small_sequence, torn_windows

LENGTHS = [[10] * 4, [10] * 4, [10] * 4]


@pytest.fixture(scope="module")
def shared(make_distributed: Callable[..., DistributedMemoryTable]) -> DistributedMemoryTable:
    return make_distributed("faults", refill=True)


@pytest.fixture
def table(shared: DistributedMemoryTable) -> Iterator[DistributedMemoryTable]:
    until(lambda: all_ready(shared), "three shards that are ready")
    shared.clear()
    fill(shared, LENGTHS)
    yield shared
    until(lambda: all_ready(shared), "three shards that are ready")
    assert shared.check() == []


def all_ready(table: DistributedMemoryTable) -> bool:
    return [state[2] for state in table._states()] == ["ready"] * 3


def learner(table: DistributedMemoryTable, deadline_s: float) -> DistributedMemoryTable:
    """Another hold on the table, with a deadline of its own."""
    return DistributedMemoryTable.attach(table.name, deadline_s=deadline_s)


def elsewhere(table: DistributedMemoryTable) -> tuple[str, str, Any]:
    """Name, node and actor of a shard that is not on this process's node."""
    here = ray.get_runtime_context().get_node_id()
    name, node, _, _, actor = next(state for state in table._states() if state[1] != here)
    return name, node, actor


def test_an_actor_that_is_killed_finds_its_table_again(table: DistributedMemoryTable) -> None:
    lost = table.stats().shards_lost
    name, _, actor = elsewhere(table)
    before = table.sample(30, 2)
    writer = ArrayMemoryTable.attach(name)  # of that node; it notices nothing
    os.kill(ray.get(actor.pid.remote()), signal.SIGKILL)
    writer.add_sequence(900, small_sequence(900, 10))
    with learner(table, 0.5) as other:  # sampling goes on over those that are there
        for _ in range(5):
            assert torn_windows(other.sample(30, 2, timeout_s=30), 2) == []
    until(lambda: all_ready(table) and table.size() == 130, "the shard with all it held")
    writer.add_sequence(901, small_sequence(901, 10))
    assert is_current(writer)
    writer.close()
    assert table.stats().shards_lost == lost
    assert table.sequence(901)["actions"].tolist() == list(range(901_000, 901_010))
    # What was drawn before still has its place.
    rewards = np.zeros((30, 2), np.float32)
    assert until(lambda: table.update(before.points, "rewards", rewards) == 30, "all written")


def test_a_table_that_is_gone_is_begun_anew_and_writers_notice(
    table: DistributedMemoryTable, caplog: pytest.LogCaptureFixture
) -> None:
    here = ray.get_runtime_context().get_node_id()
    name = next(state[0] for state in table._states() if state[1] == here)
    table.add_sequence(900, small_sequence(900, 10))
    old = table._local()
    lost, held = table.stats().shards_lost, table.stats().transitions_lost
    points = table.sample(60, 1).points
    stale = int((points.sources == points.tables.index(old._core.arena.id)).sum())
    # A loss is counted by what was heard last.
    until(lambda: ray.get(table._keeper().heard.remote())[name] == 50, "that it holds so much")
    drop(name)  # as where a system clears the memory of users that have logged out
    assert not is_current(old)
    with caplog.at_level(logging.WARNING, "shmtable"):
        until(lambda: table.stats().shards_lost == lost + 1, "the loss in stats()")
        until(lambda: all_ready(table), "the shard, empty")
        until(
            lambda: not table.sample(60, 1) or "lost: 1 shards with" in caplog.text, "it in the log"
        )
    assert table.stats().transitions_lost == held + 50
    assert table.size() == 80
    table.add_sequence(901, small_sequence(901, 10))  # by the same object as before
    assert table._local() is not old
    assert table.sequence(901)["actions"][0] == 901_000
    # Updates for what the old table held find nobody.
    values = np.zeros((60, 1), np.float32)
    assert table.update(points, "rewards", values) == 60 - stale


def test_a_keeper_that_is_killed_finds_all_shards_again(table: DistributedMemoryTable) -> None:
    points = table.sample(60, 1).points
    pid = ray.get(table._keeper().pid.remote())
    os.kill(pid, signal.SIGKILL)
    until(lambda: ray.get(table._keeper().pid.remote()) != pid, "another keeper")
    assert table.size() == 120  # of all three shards, which are waited for
    assert len(table.identities()) == 12
    until(lambda: all_ready(table), "three shards")
    table.add_sequence(900, small_sequence(900, 10))
    assert torn_windows(table.sample(30, 2, timeout_s=30), 2) == []
    rewards = np.zeros((60, 1), np.float32)
    until(lambda: table.update(points, "rewards", rewards) == 60, "updates to find their tables")


def test_a_detached_table_ends_when_it_is_told_to(cluster: SimulatedNodes) -> None:
    here = ray.get_runtime_context().get_node_id()
    name = f"test{os.getpid()}-kept"
    options: dict[str, Any] = {
        "columns": small_columns(),
        "maxlen": 100,
        "sampler": UniformSampleStrategy(),
        "ejector": FifoEjectionStrategy(),
    }
    made = DistributedMemoryTable(name=name, nodes=[here], detached=True, **options)
    made.add_sequence(1, small_sequence(1, 10))
    shard = next(actor for *_, actor in made._states())
    pids = [ray.get(actor.pid.remote()) for actor in (made._keeper(), shard)]
    os.kill(pids[0], signal.SIGKILL)
    with DistributedMemoryTable.attach(name) as other:
        until(lambda: ray.get(other._keeper().pid.remote()) != pids[0], "another keeper")
        until(lambda: [state[2] for state in other._states()] == ["ready"], "the shard")
        shard = next(actor for *_, actor in other._states())
        assert ray.get(shard.pid.remote()) == pids[1]  # it has never been away
        assert other.size() == 10
        other.end()
    assert not [found for found in os.listdir("/dev/shm") if name in found]


def test_a_slow_shard_costs_a_batch_its_deadline_and_the_next_ones_nothing(
    table: DistributedMemoryTable,
) -> None:
    _, _, actor = elsewhere(table)
    pid = ray.get(actor.pid.remote())
    with learner(table, 1.0) as other:
        assert len(other.sample(60, 1).points.tables) == 3
        os.kill(pid, signal.SIGSTOP)
        try:
            # Had it to be waited for, this would not end.
            found = [len(other.sample(60, 1).points.tables) for _ in range(20)]
            late = other._sampling().late
        finally:
            os.kill(pid, signal.SIGCONT)
        # Once; the others, too, may be late where a machine is busy.
        assert 1 <= late <= 5
        assert max(found) == 2
        until(lambda: len(other.sample(60, 1).points.tables) == 3, "all three shards in a batch")


def learn(table: DistributedMemoryTable) -> None:
    """A learner that is killed with batches asked for ahead."""
    batches = table.batches(50, 2, ahead=4)
    next(batches)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_learner_that_dies_leaves_nothing_and_another_goes_on(
    table: DistributedMemoryTable,
) -> None:
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(ray.remote(num_cpus=0, max_retries=0)(learn).remote(table))
    with learner(table, 60.0) as other:
        assert torn_windows(other.sample(50, 2), 2) == []
        other.add_sequence(900, small_sequence(900, 5))
    assert table.size() == 125
    assert all(
        shard.stats and not shard.stats.writing_transitions for shard in table.stats().shards
    )


@pytest.fixture(scope="module")
def replaced(
    cluster: SimulatedNodes,
    shared: DistributedMemoryTable,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What is seen while a node is lost and another one comes.

    Of the module, so that the new node's processes are not taken for what a test has left.
    """
    until(lambda: all_ready(shared), "three shards that are ready")
    shared.clear()
    fill(shared, LENGTHS)
    shared.store(tmp_path_factory.mktemp("kept") / "kept")
    before = shared.stats()
    name, node, actor = elsewhere(shared)
    pid = ray.get(actor.pid.remote())
    with ArrayMemoryTable.attach(name) as shard:
        held = set(shard.identities().tolist())
    held_by = shared._keeper().heard
    until(lambda: set(ray.get(held_by.remote()).values()) == {40}, "the keeper to hear of it")
    with learner(shared, 0.5) as other:
        other.sample(30, 2)
        cluster.lose(node, pid)
        batches = [other.sample(30, 2, timeout_s=30) for _ in range(10)]
        until(lambda: shared.stats().shards_lost > before.shards_lost, "the loss in stats()")
        without = shared.stats()
        cluster.more.append(cluster.add())
        until(lambda: all_ready(shared), "a shard on the new node")
        until(lambda: len(other.sample(30, 2).points.tables) == 3, "all three shards in a batch")
    return {
        "name": name,
        "held": held,
        "before": before,
        "batches": batches,
        "without": without,
        "after": shared.stats(),
        "identities": set(shared.identities().tolist()),
    }


def test_a_node_that_is_lost_takes_only_its_own_with_it(replaced: dict[str, Any]) -> None:
    for batch in replaced["batches"]:
        assert torn_windows(batch, 2) == []
        assert not replaced["held"] & set(batch.points.identities.tolist())
    before, without = replaced["before"], replaced["without"]
    assert without.shards_lost == before.shards_lost + 1
    assert without.transitions_lost == before.transitions_lost + 40
    assert len(without.shards) == 2
    assert without.transitions == 80


def test_another_node_takes_its_place_with_its_last_file(replaced: dict[str, Any]) -> None:
    assert [shard.state for shard in replaced["after"].shards] == ["ready"] * 3
    assert replaced["after"].transitions == 120
    assert replaced["held"] <= replaced["identities"]
    # What the lost one has left in this machine's memory is gone, too.
    assert replaced["name"] not in [shard.name for shard in replaced["after"].shards]
    assert not any(replaced["name"] in found for found in os.listdir("/dev/shm"))


def test_what_is_left_when_nobody_ends_the_table_is_swept(shared: DistributedMemoryTable) -> None:
    """Last, as it ends the table of this module."""
    names = {shard.name for shard in shared.stats().shards}
    shared._local_ = None  # this process has one of them open, as a writer
    ray.kill(shared._keeper())  # as when the program that made it is killed
    swept: set[str] = set()

    def are_gone() -> bool:
        found = (os.path.basename(path) for path in leftovers.sweep())
        swept.update(name for path in found for name in names if path.endswith(name))
        return swept == names

    until(are_gone, "the shards' memory, once their actors have ended")
