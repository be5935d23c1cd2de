"""A process may die while it creates a table, or while it is the first to attach to one."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from shmtable import ArenaDamagedError, ArenaInUseError, ArrayMemoryTable
from tests.chaos.content import Content, Entry, add, look
from tests.chaos.every_store import telling
from tests.chaos.stores import Stores
from tests.chaos.watch import watch_from_birth
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew

THREE = (Entry(0, 10), Entry(1, 5), Entry(2, 7))
EMPTY = Content((), 60, 60)
Birth = Callable[[str, str | None, str], None]


def _create(name: str, directory: str | None, lock: str) -> None:
    content.make(name=name, directory=directory, lock=lock, maxlen=60, seed=1)


def _attach(name: str, directory: str | None, lock: str) -> None:
    ArrayMemoryTable.attach(name, directory=directory)


def _count(birth: Birth, *place: str | None) -> int:
    """Runs to the end in a process of its own; the number of its stores."""
    counter = Stores()
    watch_from_birth(counter)
    birth(*place)  # type: ignore[arg-type]
    return counter.count


def _die(birth: Birth, fatal: int, *place: str | None) -> None:
    watch_from_birth(Stores(fatal))
    birth(*place)  # type: ignore[arg-type]


def _stores_of(birth: Birth, *place: str | None) -> int:
    with Crew("fork") as crew:
        crew.add(_count, birth, *place)
        crew.go()
        stores: int = crew.results()[0]
    return stores


def _let_die(birth: Birth, fatal: int, *place: str | None) -> None:
    with Crew("fork") as crew:
        crew.add(_die, birth, fatal, *place).expected_exit = -signal.SIGKILL
        crew.go()
        crew.results()


def _let_go() -> None:
    """Ends this process's hold on a closed table's file, so that the next one is the first."""
    gc.collect()
    gc.freeze()  # looking through all of torch each time would take seconds


def _use(table: ArrayMemoryTable, before: Content) -> None:
    """It has the content it should have, and works."""
    assert table.check() == []
    assert look(table) == before
    now = before.added(Entry(10, 9), Entry(11, 40))
    add(table, Entry(10, 9), Entry(11, 40))
    assert look(table) == now
    assert content.wrong_with(table.sample(8, 3), 3) == []
    assert table.check() == []


@pytest.mark.parametrize("lock", ["portable"])
def test_death_in_creating_a_name_leaves_it_to_the_next(
    unique_name: Callable[[], str], lock: str
) -> None:
    stores = _stores_of(_create, unique_name(), None, lock)
    assert stores > 20
    for number in range(1, stores + 1):
        name = unique_name()
        with telling(f"death after store {number} of {stores}"):
            _let_die(_create, number, name, None, lock)
            with content.make(name=name, lock=lock, maxlen=60) as table:
                _use(table, EMPTY)


def test_death_in_creating_a_file_leaves_a_whole_one_or_none(
    unique_name: Callable[[], str], tmp_path: Path
) -> None:
    directory = str(tmp_path)
    stores = _stores_of(_create, unique_name(), directory, "robust")
    whole = 0
    for number in range(1, stores + 1):
        name = unique_name()
        with telling(f"death after store {number} of {stores}"):
            _let_die(_create, number, name, directory, "robust")
            try:
                table = ArrayMemoryTable.attach(name, directory=directory)
            except ArenaDamagedError as error:
                assert "was never finished" in str(error)
                assert whole == 0
                table = content.make(name=name, directory=directory, maxlen=60)
            else:
                whole += 1
                with pytest.raises(ArenaInUseError):
                    content.make(name=name, directory=directory)
            with table:
                _use(table, EMPTY)
    assert 0 < whole < stores


@pytest.mark.parametrize("lock", ["robust"])
def test_death_in_being_the_first_to_attach_leaves_the_content(
    unique_name: Callable[[], str], tmp_path: Path, lock: str, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(gc.unfreeze)
    name, directory = unique_name(), str(tmp_path)
    file = tmp_path / f"{name}.shmtable"
    with content.make(name=name, directory=directory, lock=lock, maxlen=60) as table:
        add(table, *THREE)
    untouched = file.read_bytes()
    _let_go()
    stores = _stores_of(_attach, name, directory, lock)
    assert stores > 50
    for number in range(1, stores + 1):
        file.write_bytes(untouched)
        with telling(f"death after store {number} of {stores}"):
            _let_die(_attach, number, name, directory, lock)
            with ArrayMemoryTable.attach(name, directory=directory) as table:
                _use(table, Content(THREE, 60, 60))
            _let_go()
