"""What is taken for damage, and what is not."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from shmtable import ArrayMemoryTable, LockTimeoutError, SpecError
from shmtable.index import fields as f
from shmtable.integrations.ray import damage
from shmtable.shm import header
from shmtable.shm.robust import robust_available
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]
ROOT = Path(__file__).parents[3]
GARBLED = 0x5A
LOCK = header.LOCKS["table"]
robust_only = pytest.mark.skipif(not robust_available(), reason="this system has no robust locks")


@pytest.fixture
def table(make_table: MakeTable) -> ArrayMemoryTable:
    made = make_table()
    for identity in range(4):
        made.add_sequence(identity, small_sequence(identity, 10))
    return made


class Damaged:
    """Writes over a part of a table; what was there comes back."""

    def __init__(self, table: ArrayMemoryTable, offset: int, size: int, byte: int) -> None:
        self._part = table._core.arena.memory[offset : offset + size]
        self._byte = byte

    def __enter__(self) -> None:
        self._sound = self._part.clone()
        self._part.fill_(self._byte)

    def __exit__(self, *exception: object) -> None:
        self._part.copy_(self._sound)


def part(table: ArrayMemoryTable, what: str) -> tuple[int, int, int]:
    regions = table._core.layout.regions
    return {
        "header": (0, header.HEADER_BYTES, 0),
        "id": (8 * header.ID_LOW, 8, GARBLED),
        "description": (header.HEADER_BYTES, 64, GARBLED),
        "counters": (8 * f.SLOT_HIGH, 8, GARBLED),
        "slots": (regions["slots"].offset + 8 * f.SLOT_WORDS, 64, GARBLED),
        "links": (regions["links"].offset, 512, GARBLED),
        "rows": (regions["row_slot"].offset, 64, GARBLED),
        "buckets": (regions["buckets"].offset, 64, GARBLED),
    }[what]


@pytest.mark.parametrize("what", ["header", "id", "counters"])
def test_a_glance_sees_what_the_rest_follows_from(table: ArrayMemoryTable, what: str) -> None:
    assert damage.glance(table) == ""
    with Damaged(table, *part(table, what)):
        assert damage.glance(table)
        assert damage.behind(SpecError("a caller's mistake"), table)
    assert damage.glance(table) == ""


def test_a_look_sees_what_processes_that_come_later_need(table: ArrayMemoryTable) -> None:
    with Damaged(table, *part(table, "description")):
        assert damage.glance(table) == ""
        assert damage.look(table)
    assert damage.look(table) == ""


@pytest.mark.parametrize("what", ["slots", "links", "rows", "buckets"])
def test_a_walk_sees_what_a_glance_does_not(table: ArrayMemoryTable, what: str) -> None:
    assert damage.walk(table) == ""
    with Damaged(table, *part(table, what)):
        assert damage.glance(table) == ""
        assert damage.walk(table)
        assert damage.behind(IndexError("out of range"), table)
    assert damage.walk(table) == ""


def test_no_error_is_damage_by_itself(table: ArrayMemoryTable) -> None:
    errors = [SpecError("x"), IndexError("x"), LockTimeoutError("x"), KeyError("x")]
    assert [damage.behind(error, table) for error in errors] == [""] * len(errors)


def test_a_lock_that_is_held_is_not_ruined(table: ArrayMemoryTable) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def section() -> None:
        inside.set()
        go_on.wait(60)

    holder = threading.Thread(target=table._core.guard.run, args=(section,))
    holder.start()
    inside.wait(60)
    found = damage.ruined_lock(table)
    go_on.set()
    holder.join()
    assert found == ""


@robust_only
def test_a_lock_whose_holder_is_gone_for_good_is_ruined(table: ArrayMemoryTable) -> None:
    words = table._core.arena.words
    gone = threading.Thread(target=lambda: numbers.append(threading.get_native_id()))
    numbers: list[int] = []
    gone.start()
    gone.join()
    while os.path.exists(f"/proc/self/task/{numbers[0]}"):  # a moment longer than Python's thread
        time.sleep(0.001)
    words[LOCK.mutex], words[LOCK.note_tid] = numbers[0], numbers[0]
    assert "which is gone" in damage.ruined_lock(table)
    assert "which is gone" in damage.behind(LockTimeoutError("waited 60 s"), table)
    words[LOCK.mutex] = 0
    assert damage.ruined_lock(table) == ""


@robust_only
def test_a_lock_that_is_written_over_is_ruined(make_table: MakeTable) -> None:
    table = make_table(lock="robust")
    place = 8 * LOCK.mutex
    table._core.arena.memory[place : place + 64].fill_(GARBLED)
    assert damage.ruined_lock(table)
    table.close()


# What holds a lock while its memory is written over, and goes on with the table that comes then.
PROGRAM = """
import sys
from shmtable import ArrayMemoryTable, FifoEjectionStrategy, UniformSampleStrategy
from shmtable.integrations.ray import local
from shmtable.integrations.ray.shard import drop
from tests.tables import small_columns, small_sequence

def make():
    return ArrayMemoryTable(
        *small_columns(), name=sys.argv[1], maxlen=100, lock="robust",
        sampler=UniformSampleStrategy(), ejector=FifoEjectionStrategy())

def replace(names):
    global table
    drop(sys.argv[1])
    table.close()
    table = make()

local._LOOK_EVERY_S = 0.0
table = make()
here = local.Local(lambda: [sys.argv[1]], (), replace)
core = here.table()._core
core.guard.run(core.arena.memory[:4096].zero_)
del core
for identity in range(3):
    here.add(identity, lambda t: t.add_sequence(identity, small_sequence(identity, 3)))
print(table.identities().tolist())
here.close()
table.close()
"""


@robust_only
def test_memory_in_which_a_held_lock_was_damaged_is_not_let_go(
    unique_name: Callable[[], str],
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, unique_name()],
        capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[0, 1, 2]\n"), done.stderr
