"""Shards whose memory is written over while they are sampled from and added to."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shmtable import ArrayMemoryTable
from shmtable.integrations.ray import DistributedMemoryTable
from shmtable.shm import header, places
from tests.integrations.ray.conftest import fill, until
from tests.tables import small_sequence, torn_windows

NOTHING = b"\0"
GARBLED = b"\x5a"


class Adder:
    """An actor's class: adds to its node's shard in a thread, and goes on whatever happens."""

    def __init__(self, table: DistributedMemoryTable) -> None:
        self._table = table
        self._stop = threading.Event()
        self._added: list[int] = []
        self._errors: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        identity = 1000
        while not self._stop.wait(0.005):
            identity += 1
            try:
                self._table.add_sequence(identity, small_sequence(identity, 5))
                self._added.append(identity)
            except Exception as error:
                self._errors.append(repr(error))

    def added(self) -> list[int]:
        return list(self._added)

    def stop(self) -> list[str]:
        self._stop.set()
        self._thread.join()
        self._table.close()
        return self._errors


@pytest.fixture(scope="module")
def shared(make_distributed: Callable[..., DistributedMemoryTable]) -> DistributedMemoryTable:
    return make_distributed("damage")


@pytest.fixture
def table(shared: DistributedMemoryTable) -> Iterator[DistributedMemoryTable]:
    until(lambda: all_ready(shared), "three shards that are ready")
    shared.clear()
    fill(shared, [[10] * 4] * 3)
    yield shared
    until(lambda: all_ready(shared), "three shards that are ready")
    assert shared.check() == []


def all_ready(table: DistributedMemoryTable) -> bool:
    return [state[2] for state in table._states()] == ["ready"] * 3


def elsewhere(table: DistributedMemoryTable) -> tuple[str, str, Any]:
    """Name, node and actor of a shard that is not on this process's node."""
    here = ray.get_runtime_context().get_node_id()
    name, node, _, _, actor = next(state for state in table._states() if state[1] != here)
    return name, node, actor


def places_of(name: str) -> dict[str, tuple[int, int, bytes]]:
    """(offset, bytes, what is written there) of several kinds of damage."""
    with ArrayMemoryTable.attach(name) as shard:
        regions = shard._core.layout.regions
        return {
            "header": (0, header.HEADER_BYTES, NOTHING),
            "lock": (8 * header.LOCKS["table"].mutex, 64, GARBLED),
            "index": (regions["links"].offset, 4096, GARBLED),
        }


@contextmanager
def writing_over(name: str, offset: int, size: int, byte: bytes) -> Iterator[Callable[[], None]]:
    """Damages a shard; what it yields does so once more, to that one and not to its successor."""
    with open(places.path_of(name, None), "r+b", buffering=0) as file:

        def once_more() -> None:
            file.seek(offset)
            file.write(byte * size)

        once_more()
        yield once_more


@pytest.mark.parametrize("what", ["header", "lock", "index"])
def test_a_damaged_shard_is_begun_anew_while_the_others_are_sampled(
    table: DistributedMemoryTable, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    name, node, _ = elsewhere(table)
    on_it = NodeAffinitySchedulingStrategy(node, soft=False)
    adder = ray.remote(num_cpus=0)(Adder).options(scheduling_strategy=on_it).remote(table)
    until(lambda: ray.get(adder.added.remote()), "that something is added")
    heard = table._keeper().heard
    until(lambda: ray.get(heard.remote())[name] > 40, "that it is heard of")
    before = table.stats()
    was = {shard.name: shard.table for shard in before.shards}
    damage = places_of(name)[what]
    with (
        caplog.at_level(logging.WARNING, "shmtable"),
        writing_over(name, *damage) as once_more,
    ):
        added = len(ray.get(adder.added.remote()))

        def sampled() -> list[str]:
            return torn_windows(table.sample(30, 2, timeout_s=30), 2)

        def lost() -> bool:
            if table.stats().shards_lost > before.shards_lost:
                return True
            if what == "index":
                once_more()  # it heals by itself where an add of that moment comes upon it
            return False

        until(lambda: not sampled() and lost(), "the loss")
        until(lambda: not sampled() and "lost: 1 shards with" in caplog.text, "it in the log")
    until(lambda: all_ready(table), "the shard, begun anew")
    until(lambda: len(ray.get(adder.added.remote())) > added + 20, "that the writer goes on")
    assert ray.get(adder.stop.remote()) == []
    now = table.stats()
    assert now.shards_lost == before.shards_lost + 1
    assert now.transitions_lost > before.transitions_lost + 40
    changed = [shard.name for shard in now.shards if was[shard.name] != shard.table]
    assert changed == [name]
    last = ray.get(adder.added.remote())[-1]
    with ArrayMemoryTable.attach(name) as shard:  # what was added since is in the new one
        assert last in shard.identities()
    assert len(until(lambda: covering(table.sample(90, 1)), "all in a batch").points.tables) == 3


def covering(batch: Any) -> Any:
    return batch if len(batch.points.tables) == 3 else None


def test_a_mistake_of_a_caller_costs_no_shard_its_table(table: DistributedMemoryTable) -> None:
    was = [shard.table for shard in table.stats().shards]
    points = table.sample(30, 2).points
    for wrong in (
        lambda: table.update(points, "no such column", [0.0] * 60),
        lambda: table.set_sampler(beta=0.5),
        lambda: table.restore("/nowhere"),
        lambda: table.store("/nowhere/at all"),
        lambda: table.update(points, "rewards", ["not a number"] * 60),
    ):
        with pytest.raises((ValueError, OSError, TypeError, KeyError)):
            wrong()
    for state in table._states():  # and one that no table raises
        with pytest.raises(ray.exceptions.RayTaskError):
            ray.get(state[4].draw.remote("many", 2))
    assert [shard.table for shard in table.stats().shards] == was
    assert table.size() == 120
