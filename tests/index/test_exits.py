"""The word that saves a sample the comparison of generations."""

from __future__ import annotations

from collections.abc import Callable

from shmtable.index import fields as f
from shmtable.index.loading import publish_locked
from tests.index.worlds import World


def test_exits_rise_whenever_a_generation_does() -> None:
    world = World(30)
    ways: dict[str, Callable[[], object]] = {
        "eject": lambda: world.index.eject_locked([world.add(1, 10)]),
        "give back": lambda: world.index.reclaim_locked([world.reserve(2, 10).slot]),
        "pass on": lambda: [world.add(identity, 10) for identity in range(3, 7)],
        "replace": lambda: world.commit(world.reserve(6, 9, replace=True)),
        "sweep": lambda: (world.orphan(world.reserve(7, 10).slot), world.index.sweep_locked()),
        "publish": lambda: publish_locked(world.index, [world.load(8, 10)]),
        "rebuild": lambda: (
            world.set(world.add(9, 10), f.LENGTH, 0),
            world.index.rebuild_locked(),
        ),
        "clear": lambda: (world.add(10, 10), world.index.clear_locked()),
    }
    for way, leave in ways.items():
        generations, exits = world.arrays.generations.copy(), world.words[f.EXITS]
        leave()
        assert (world.arrays.generations > generations).any(), way
        assert world.words[f.EXITS] > exits, way
