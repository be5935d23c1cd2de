"""The keeper of shards, in this process, with shards that are killed for good."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray

from shmtable import ArrayMemoryTable, FifoEjectionStrategy, UniformSampleStrategy
from shmtable.integrations.ray.keeper import Keeper
from shmtable.integrations.ray.shard import drop
from tests.integrations.ray.conftest import until
from tests.tables import small_columns, small_sequence


@pytest.fixture
def keeper(cluster: Any, unique_name: Callable[[], str]) -> Iterator[Keeper]:
    options = {
        "columns": small_columns(),
        "maxlen": 100,
        "sampler": UniformSampleStrategy(),
        "ejector": FifoEjectionStrategy(),
        "classes": (),
    }
    here = [ray.get_runtime_context().get_node_id()]
    store = unique_name()
    keeper = Keeper(store, "0a1b2c3d", options, {}, here, 1, refill=True, detached=False)
    assert keeper.seen(1, 60.0).shards
    yield keeper
    keeper.close()
    assert not [name for name in os.listdir("/dev/shm") if store in name]


def test_a_shard_that_is_killed_begins_with_its_own_last_file(
    keeper: Keeper, tmp_path: Path
) -> None:
    ((name, _, _, table, actor),) = keeper.states()
    with ArrayMemoryTable.attach(name) as here:
        here.add_sequence(1, small_sequence(1, 10))
    ray.get(actor.store.remote(str(tmp_path / "own")))
    keeper.stored({name: str(tmp_path / "own")})
    keeper._vacant.append("of a lost node")
    ray.kill(actor)
    drop(name)
    until(lambda: keeper.states()[0][2:4] not in [("ready", table), ("silent", table)], "another")
    with ArrayMemoryTable.attach(name) as here:
        assert here.identities().tolist() == [1]
    assert keeper._vacant == ["of a lost node"]
    assert keeper.seen().lost == 1


def test_it_goes_on_watching_where_a_name_is_not_free_yet(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def look() -> None:
        looks.append(True)
        raise ValueError("the name is already taken")

    monkeypatch.setattr(keeper, "_look", look)
    until(lambda: len(looks) > 2, "that it looks again")


def test_a_table_whose_actor_is_dead_is_ended_all_the_same(keeper: Keeper) -> None:
    ((name, *_, actor),) = keeper.states()
    assert [found for found in os.listdir("/dev/shm") if name in found]
    keeper._stop.set()  # it does not hear of it before it is closed
    keeper._watcher.join()
    ray.kill(actor)
    keeper.close()
    assert not [found for found in os.listdir("/dev/shm") if name in found]
