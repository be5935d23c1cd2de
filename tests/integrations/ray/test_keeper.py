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
from shmtable.integrations.ray.entries import Entry
from shmtable.integrations.ray.keeper import Keeper
from shmtable.integrations.ray.notes import Notes, last_file
from shmtable.integrations.ray.shard import drop
from tests.integrations.ray.conftest import until
from tests.tables import small_columns, small_sequence

MakeKeeper = Callable[[], Keeper]


@pytest.fixture
def make_keeper(cluster: Any, unique_name: Callable[[], str]) -> Iterator[MakeKeeper]:
    """Makes a keeper of one shard, and those that are started again in its place."""
    options = {
        "columns": small_columns(),
        "maxlen": 100,
        "sampler": UniformSampleStrategy(),
        "ejector": FifoEjectionStrategy(),
        "classes": (),
    }
    here = [ray.get_runtime_context().get_node_id()]
    store = unique_name()
    made: list[Keeper] = []

    def make() -> Keeper:
        for keeper in made:
            stop(keeper)
        made.append(Keeper(store, "0a1b2c3d", options, {}, here, 1, refill=True, detached=False))
        return made[-1]

    yield make
    made[-1].close()
    assert not Notes(f"{store}.0a1b2c3d").read()
    assert not [name for name in os.listdir("/dev/shm") if store in name]


@pytest.fixture
def keeper(make_keeper: MakeKeeper) -> Keeper:
    keeper = make_keeper()
    assert keeper.seen(1, 60.0).shards
    return keeper


def stop(keeper: Keeper) -> None:
    """As if it had been killed."""
    keeper._stop.set()
    keeper._watcher.join()


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
    stop(keeper)  # it does not hear of it before it is closed
    ray.kill(actor)
    keeper.close()
    assert not [found for found in os.listdir("/dev/shm") if name in found]


def test_a_keeper_that_is_started_again_knows_what_was_lost_and_what_there_is(
    keeper: Keeper, make_keeper: MakeKeeper
) -> None:
    ((name, _, _, table, _),) = keeper.states()
    keeper.stored({name: "/somewhere/own"})
    drop(name)
    until(lambda: keeper.states()[0][3] != table, "another table")
    table = keeper.states()[0][3]
    gone = Entry(f"{keeper._prefix}.gone.0", "a node that is gone", file="/somewhere/gone", table=7)
    keeper._shards[gone.name] = gone  # and this one will be, while no keeper is there
    keeper._note(at_once=True)
    again = make_keeper()
    assert again.states()[0][2:4] == ("starting", table)
    assert again.seen().lost == 2
    assert again.needed() == ["/somewhere/gone"]
    assert again._shards[name].file == last_file(again._prefix, name) == "/somewhere/own"
    stop(again)
    ray.get(again.states()[0][4].pid.remote())
    drop(name)  # nobody sees it
    third = make_keeper()
    until(lambda: third.seen().lost == 3, "what was lost meanwhile")


def test_a_last_file_waits_for_the_actor_that_takes_it(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ((name, here, _, _, actor),) = keeper.states()
    with ArrayMemoryTable.attach(name) as table:
        table.add_sequence(1, small_sequence(1, 10))
    ray.get(actor.store.remote(str(tmp_path / "lost")))
    stop(keeper)
    ray.kill(actor)
    drop(name)
    del keeper._shards[name]
    keeper._vacant.append(str(tmp_path / "lost"))

    def not_free_yet(*_: Any, **__: Any) -> None:
        raise ValueError("the name is already taken")

    with monkeypatch.context() as patch:
        patch.setattr("shmtable.integrations.ray.keeper.ray.remote", not_free_yet)
        keeper._look()
        assert keeper.states() == [(name, here, "starting", 0, None)]
    until(lambda: keeper._look() or keeper.seen().shards, "that it is made at last")
    with ArrayMemoryTable.attach(name) as table:
        assert table.identities().tolist() == [1]


def test_what_is_spared_for_a_lost_shard_is_told_when_it_is_not_needed_any_more(
    keeper: Keeper,
) -> None:
    ((name, *_),) = keeper.states()
    keeper._vacant.append("lost")
    assert keeper.stored({name: "second"}, ["lost"]) == []
    keeper._shards[name].file = keeper._vacant.pop()  # taken
    assert keeper.stored({}, []) == []
    assert keeper.stored({name: "third"}, []) == ["lost"]
    assert keeper.stored({name: "fourth"}, []) == []
