"""Calls cut off at every point: no descriptor, no memory, no entry and no lock stays taken."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from shmtable import ArrayMemoryTable
from shmtable.shm.places import SUFFIX
from tests.interrupts import cut_off
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew
from tests.shm.helpers import descriptors

CALLS = ("create", "attach", "unpickle", "store", "restore", "create a file", "attach a file")
# Where something is taken or given back; in the rest, there is nothing yet or still to be lost.
FILES = tuple(
    f"shmtable/{name}.py"
    for name in (
        "held",
        "formats/archive",
        "formats/atomic",
        "formats/files",
        "index/attachments",
        "protocols/core",
        "protocols/disk",
        "protocols/restore",
        "shm/arena",
        "shm/durable",
        "shm/files",
        "shm/opened",
        "shm/parting",
    )
)
EACH = 300  # beyond, which is a file's being read, not every one


def _make(call: str, name: str, path: str) -> tuple[Callable[[], object], ArrayMemoryTable | None]:
    """The call, and the table that it is about."""
    folder = os.path.dirname(path)

    def make_file() -> None:
        content.make(maxlen=60, name=name, directory=folder).close()

    def make_file_anew() -> None:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name + SUFFIX))
        make_file()

    if call == "create":
        return lambda: content.make(maxlen=60, name=name).close(), None
    if call == "create a file":
        return make_file_anew, None
    if call == "attach a file":
        make_file()
        return lambda: ArrayMemoryTable.attach(name, directory=folder).close(), None
    table = content.make(maxlen=60, name=name)
    table.add_sequence(1, content.sequence(1, 10))
    table.store(path)
    parcel = pickle.dumps(table)
    calls: dict[str, Callable[[], object]] = {
        "attach": lambda: ArrayMemoryTable.attach(name).close(),
        "unpickle": lambda: pickle.loads(parcel).close(),
        "store": lambda: table.store(path),
        "restore": lambda: table.restore(path),
    }
    return calls[call], table


def _taken(name: str, table: ArrayMemoryTable | None) -> Counter[str]:
    """What is in use now, by its name."""
    gc.collect()  # what a closed table consists of refers to itself
    found = descriptors()
    found.update(file for file in os.listdir("/dev/shm") if name in file)
    if table is not None:
        found["entries"] = len(table._core.attachments.all())
        found["unfinished"] = table.stats().writing_transitions
        found["findings"] = len(table.check())
    return found


def _sweep(call: str, name: str, path: str) -> tuple[int, list[str]]:
    """How many points there are, and what was left at which."""
    sys.unraisablehook = lambda _: None  # an interrupt in a finaliser is printed and dropped
    act, table = _make(call, name, path)
    act()
    gc.collect()
    gc.freeze()
    before, left, point = _taken(name, table), [], 1
    while cut_off(act, point, FILES, KeyboardInterrupt):
        now = _taken(name, table)
        if now != before:
            left.append(f"point {point}: {now - before}, not {before - now}")
            before = now
        point += 1 if point < EACH else 7
    others = threading.Thread(target=act)  # with locks that another thread would have left taken
    others.start()
    others.join(30)
    if others.is_alive():
        left.append("a lock")
    if table is not None:
        table.close()
    return point, left


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.replace(" ", "-"))
def test_cut_off_at_any_point_a_call_leaves_nothing_taken(
    unique_name: Callable[[], str], tmp_path: Path, call: str
) -> None:
    with Crew("fork") as crew:  # pytest opens and closes files too
        crew.add(_sweep, call, unique_name(), str(tmp_path / "table"))
        crew.go()
        ((points, left),) = crew.results()
    assert left == []
    assert points > 20
