"""Tables that are closed, attached again, or attached by several at once, while they are in use."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shmtable import ArrayMemoryTable
from shmtable.protocols import write
from shmtable.protocols.core import Core
from shmtable.shm.lock import Status
from tests.multiprocess import content
from tests.multiprocess.recipe import DEADLINE_S, Crew, link

LOCKS = ["robust", "portable"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Callable[[], ArrayMemoryTable]]:
    """Attaches to the table ``t`` in ``tmp_path``; what it made is closed afterwards."""
    made: list[ArrayMemoryTable] = []

    def again() -> ArrayMemoryTable:
        made.append(ArrayMemoryTable.attach("t", directory=str(tmp_path)))
        return made[-1]

    yield again
    for table in made:
        table.close()


def _try_lock(directory: str) -> str:
    table = ArrayMemoryTable.attach("t", directory=directory)
    link().tell("attached")
    link().hear()
    return str(table._core.guard._mutex.try_acquire().value)


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_left_of_a_closed_table_does_not_touch_the_lock_of_the_next(
    make_table: Any, attach: Any, tmp_path: Path, lock: str
) -> None:
    # The closed one refers to itself, so the collector ends it, at a moment of its own choice:
    # here inside a section of the one attached since.
    table = make_table(columns=content.columns(), name="t", directory=str(tmp_path), lock=lock)
    table.add_sequence(1, content.sequence(1, 5))
    old = table._core
    table.close()
    table = attach()

    with Crew("fork") as crew:
        member = crew.add(_try_lock, str(tmp_path))
        crew.go()
        assert member.hear() == "attached"

        def body() -> None:
            nonlocal old
            del old
            gc.collect()
            member.tell("now")
            assert crew.results() == [Status.BUSY.value]

        table._core.guard.run(body)


def _attach_and_settle_late(directory: str) -> None:
    make = Core.__init__

    def late(core: Core, *arguments: Any) -> None:
        link().tell("attached")
        link().hear()
        make(core, *arguments)

    Core.__init__ = late  # type: ignore[method-assign]
    table = ArrayMemoryTable.attach("t", directory=directory)
    table.add_sequence(2, content.sequence(2, 5))


def _attach_and_write_slowly(directory: str) -> None:
    copy = write.copy

    def late(*arguments: Any) -> None:
        link().tell("writing")
        link().hear()
        copy(*arguments)

    write.copy = late
    table = ArrayMemoryTable.attach("t", directory=directory)
    table.add_sequence(3, content.sequence(3, 5))


def test_who_found_the_file_unused_spares_those_who_came_right_after(
    make_table: Any, attach: Any, tmp_path: Path
) -> None:
    table = make_table(columns=content.columns(), name="t", directory=str(tmp_path))
    table.add_sequence(1, content.sequence(1, 5))
    table.close()
    with Crew("fork") as crew:
        first = crew.start(_attach_and_settle_late, str(tmp_path))
        assert [first.hear(), first.hear()] == ["ready", "attached"]
        second = crew.start(_attach_and_write_slowly, str(tmp_path))
        assert [second.hear(), second.hear()] == ["ready", "writing"]
        first.tell("settle")
        first.join()  # by now it has also added
        second.tell("go on")
        second.join()
    table = attach()
    for identity in (1, 2, 3):
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []
    assert table.check() == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_table_closed_while_a_thread_writes_is_in_use_until_it_has_written(
    make_table: Any, tmp_path: Path, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, writing, go_on = write.copy, threading.Event(), threading.Event()

    def late(*arguments: Any) -> None:
        writing.set()
        assert go_on.wait(DEADLINE_S)
        copy(*arguments)

    with Crew("fork") as crew:
        # Before there is a table, so that it inherits nothing of it.
        member = crew.add(_add_and_look, str(tmp_path))
        table = make_table(columns=content.columns(), name="t", directory=str(tmp_path), lock=lock)
        table.add_sequence(1, content.sequence(1, 5))
        monkeypatch.setattr(write, "copy", late)
        thread = threading.Thread(
            target=table.add_sequence, args=(2, content.sequence(2, 5)), daemon=True
        )
        thread.start()
        assert writing.wait(DEADLINE_S)
        table.close()
        crew.go()
        assert member.hear() == "added"
        go_on.set()
        thread.join(DEADLINE_S)
        member.tell("look")
        assert crew.results() == [[1, 3, 2]]


def _add_and_look(directory: str) -> list[int]:
    table = ArrayMemoryTable.attach("t", directory=directory)
    table.add_sequence(3, content.sequence(3, 5))
    link().tell("added")
    link().hear()
    found: list[int] = table.identities().tolist()
    for identity in found:
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []
    assert table.check() == []
    return found


def test_a_table_closed_while_a_thread_needs_more_memory(
    make_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(columns=content.columns(), maxlen=100_000)
    grow = Core.grow

    def late(core: Core, *arguments: Any) -> None:
        table.close()
        grow(core, *arguments)

    monkeypatch.setattr(Core, "grow", late)
    table.add_sequence(1, content.sequence(1, 50_000))


_OUTSIDER = """
import sys
from shmtable import ArrayMemoryTable
from shmtable.protocols import write
from tests.multiprocess import content
copy = write.copy
def late(*arguments):
    print("writing", flush=True)
    sys.stdin.readline()
    copy(*arguments)
write.copy = late
table = ArrayMemoryTable.attach(sys.argv[1])
table.add_sequence(2, content.sequence(2, 5))
print("added", flush=True)
"""


def test_a_writer_whose_number_means_nothing_here_is_not_taken_for_dead(
    make_table: Any, unique_name: Callable[[], str]
) -> None:
    space = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    try:
        subprocess.run([*space, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system does not let us make a pid namespace")
    name = unique_name()
    table = make_table(columns=content.columns(), name=name, lock="portable")
    with subprocess.Popen(
        [*space, sys.executable, "-c", _OUTSIDER, name],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as outsider:
        assert outsider.stdout is not None
        assert outsider.stdout.readline() == "writing\n"
        assert table._core.guard.run(table._core.index.sweep_locked) == 0
        found, _ = outsider.communicate("\n", timeout=DEADLINE_S)
        assert found == "added\n"
    assert content.wrong_with_sequence(table.sequence(2), 2) == []
