"""Tables attached by name, also by programs that were started separately."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shmtable import ArenaInUseError, ArenaNotFoundError, ArrayMemoryTable
from tests.multiprocess import content, outsider
from tests.multiprocess.recipe import DEADLINE_S, Crew, link

ROOT = Path(__file__).parents[2]
SHM = Path("/dev/shm")


def _run_outsider(*arguments: str) -> dict[str, Any]:
    """Starts a separate program on a table and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", outsider.__name__, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _files(name: str) -> list[str]:
    return [path.name for path in SHM.glob(f"*{name}*")] if SHM.is_dir() else []


def test_a_program_started_separately_attaches_by_name(
    unique_name: Callable[[], str], make_table
) -> None:
    name = unique_name()
    table = make_table(columns=content.columns(), name=name, lock="robust")
    for identity in range(5):
        table.add_sequence(identity, content.sequence(identity, 2 + identity))
    found = _run_outsider(name)
    assert found == {"identities": [0, 1, 2, 3, 4], "size": 23, "wrong": []}
    assert table.identities().tolist() == [0, 1, 2, 3, 4, outsider.IDENTITY]
    added = table.sequence(outsider.IDENTITY)
    assert content.wrong_with_sequence(added, outsider.IDENTITY) == []
    assert table.stats().recoveries == 0


def test_a_program_started_later_finds_a_table_on_disk(
    unique_name: Callable[[], str], tmp_path: Path
) -> None:
    name, directory = unique_name(), str(tmp_path)
    with content.make(name=name, directory=directory, lock="portable") as table:
        for identity in range(5):
            table.add_sequence(identity, content.sequence(identity, 2 + identity))
    found = _run_outsider(name, directory)
    assert found == {"identities": [0, 1, 2, 3, 4], "size": 23, "wrong": []}
    with ArrayMemoryTable.attach(name, directory=directory) as table:
        assert table.identities().tolist() == [0, 1, 2, 3, 4, outsider.IDENTITY]
        assert table.check() == []
    assert _files(name) == []


def _close_after_use(table: ArrayMemoryTable) -> int:
    size = table.size()
    table.close()
    return size


def _attach_and_close(name: str, rounds: int) -> int:
    size = 0
    for _ in range(rounds):
        with ArrayMemoryTable.attach(name) as table:
            size += table.size()
    return size


def _create_and_wait(name: str) -> None:
    with content.make(name=name) as table:
        table.add_sequence(1, content.sequence(1, 3))
        link().tell("created")
        link().hear()


@pytest.mark.parametrize("lock", ["robust", "portable"])
def test_only_its_owner_ends_a_name(unique_name: Callable[[], str], lock: str) -> None:
    name = unique_name()
    with content.make(name=name, lock=lock) as table:
        table.add_sequence(1, content.sequence(1, 4))
        assert len(_files(name)) == 1
        with Crew("fork") as crew:
            crew.add(_close_after_use, table)
            crew.add(os.getpid)  # ends without closing what it inherited
            crew.add(_attach_and_close, name, 20)
            crew.go()
            sizes = crew.results()
        assert (sizes[0], sizes[2]) == (4, 80)
        assert len(_files(name)) == 1
        with pytest.raises(ArenaInUseError):
            content.make(name=name)
        table.add_sequence(2, content.sequence(2, 4))
        assert table.identities().tolist() == [1, 2]
    assert _files(name) == []
    with pytest.raises(ArenaNotFoundError):
        ArrayMemoryTable.attach(name)


@pytest.mark.parametrize("how", ["close", "kill"])
def test_a_name_can_be_had_again_when_its_owner_has_gone(
    unique_name: Callable[[], str], how: str
) -> None:
    name = unique_name()
    with Crew("fork") as crew:
        owner = crew.add(_create_and_wait, name)
        crew.go()
        assert owner.hear() == "created"
        with pytest.raises(ArenaInUseError):
            content.make(name=name)
        if how == "kill":
            owner.kill()
        else:
            owner.tell("close")
        crew.results()
        with content.make(name=name) as table:
            assert table.size() == 0
    assert _files(name) == []


def test_who_is_attached_goes_on_when_the_owner_closes(unique_name: Callable[[], str]) -> None:
    name = unique_name()
    with Crew("fork") as crew:
        owner = crew.add(_create_and_wait, name)
        crew.go()
        assert owner.hear() == "created"
        with ArrayMemoryTable.attach(name) as table:
            owner.tell("close")
            crew.results()
            assert _files(name) == []
            table.add_sequence(2, content.sequence(2, 3))
            assert content.wrong_with(table.sample(30, 2), 2) == []
            assert table.check() == []
