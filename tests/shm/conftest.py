"""Arenas for the tests of shared memory, closed again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from tests.shm.helpers import descriptors, small_plan


@pytest.fixture(params=["robust", "portable"])
def lock_kind(request: pytest.FixtureRequest) -> str:
    """Both kinds of lock."""
    return str(request.param)


@pytest.fixture
def make_arena() -> Iterator[Callable[..., Arena]]:
    """Makes small arenas and closes whatever of them is still open."""
    made: list[Arena] = []

    def make(**options: Any) -> Arena:
        arena = Arena.create(options.pop("plan", small_plan), **options)
        made.append(arena)
        return arena

    yield make
    for arena in made:
        while not arena.closed:
            arena.close()


@pytest.fixture
def make_guard(make_arena: Callable[..., Arena]) -> Callable[..., Guard]:
    """Makes a guard of a new arena whose repair makes its two counters equal again."""
    from tests.shm.helpers import counting_guard

    return lambda lock, **options: counting_guard(make_arena(lock=lock, **options))


@pytest.fixture
def opened() -> Callable[[], int]:
    """Counts the descriptors opened since the test began, whatever else has been closed."""
    before = descriptors()
    return lambda: (descriptors() - before).total()
