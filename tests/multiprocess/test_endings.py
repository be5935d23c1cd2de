"""Ctrl-C at every moment, exits in the middle of calls, and whole groups that are killed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from shmtable import ArrayMemoryTable, EmptyTableError
from shmtable.shm.header import DIRTY
from tests.interrupts import let_alarms_interrupt
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link
from tests.shm.helpers import wait_until

LOCKS = pytest.mark.parametrize("lock", ["robust", "portable"])
ROUNDS = 1500
CLOSED = (
    b"shmtable.errors.ClosedError: the table was closed",
    b"Exception in thread ",
    # Python's own, of a thread that it ended while that was telling of such an error.
    b"Fatal Python error: _enter_buffered_busy",
)
KNOWN = 12  # identities in use


def _work(table: ArrayMemoryTable, rng: random.Random) -> None:
    """Calls of all sorts, for ever."""
    while True:
        identity = rng.randrange(KNOWN)
        table.add_sequence(identity, content.sequence(identity, 1 + identity))
        with suppress(EmptyTableError):
            table.sample(4, 1)
        if identity == 0:
            table.clear()
        elif identity < 4:
            table.remove(identity)


def _storm(table: ArrayMemoryTable, seed: int) -> tuple[int, int]:
    """Interrupt a call once a round; now and then one that repairs. Counts interrupts."""
    rng, words = random.Random(seed), table._core.arena.words
    let_alarms_interrupt()
    interrupts = repairs = 0
    for _ in range(ROUNDS):
        try:
            if rng.random() < 0.3:
                table._core.guard.run(lambda: words.__setitem__(DIRTY, 1))
                repairs += 1
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 1.5e-3))
            _work(table, rng)
        except KeyboardInterrupt:
            interrupts += 1
        table.size()  # within its time limit, or the lock was left held
    return interrupts, repairs


def _work_until_told(table: ArrayMemoryTable) -> None:
    while not link().told():
        for identity in range(KNOWN, KNOWN + 4):
            table.add_sequence(identity, content.sequence(identity, 5))
            with suppress(EmptyTableError):
                assert content.wrong_with(table.sample(4, 1), 1) == []


@LOCKS
def test_thousands_of_interrupts_leave_a_sound_table(make_table, lock: str) -> None:
    table = make_table(columns=content.columns(), maxlen=60, lock=lock, on_duplicate="replace")
    with Crew("fork") as crew:
        stormy = crew.add(_storm, table, len(lock))
        other = crew.add(_work_until_told, table)
        crew.go()
        stormy.join()
        other.tell("stop")
        crew.results()
    interrupts, repairs = stormy.result
    assert interrupts == ROUNDS and repairs > ROUNDS // 5
    assert table.check() == []
    for identity in table.identities().tolist():
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []
    table.add_sequence(99, content.sequence(99, 60))  # whatever was given up is room again
    assert table.identities().tolist() == [99]


@LOCKS
def test_an_interpreter_may_end_while_its_threads_use_the_table(
    make_table, lock: str, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    code = f"""
import threading
from shmtable import ArrayMemoryTable
from tests.multiprocess import content
table = ArrayMemoryTable.attach({name!r})
begun = threading.Barrier(5)

def work(number):
    begun.wait()
    while True:
        table.sample(64, 4)
        table.add_sequence(number, content.sequence(number, 20))

for number in range(4):
    threading.Thread(target=work, args=(number,), daemon=True).start()
begun.wait()
for _ in range(20):
    table.sample(64, 4)
"""
    table = make_table(columns=content.columns(), name=name, lock=lock, on_duplicate="replace")
    table.add_sequence(0, content.sequence(0, 20))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    # Python ends daemon threads wherever they are. In torch's C++ that may be an abort, or a use of
    # what the C++ library has torn down by then; what counts is how the table is left.
    assert result.returncode in (0, -signal.SIGABRT, -signal.SIGSEGV), result.stderr
    # Threads that go on are told, at most, that the table has been closed.
    errors = re.findall(rb"^[\w.]*(?:Error|Exception|Fatal)\b.*", result.stderr, re.MULTILINE)
    assert [text for text in errors if not text.startswith(CLOSED)] == []
    table.add_sequence(9, content.sequence(9, 30))
    assert content.wrong_with(table.sample(64, 4), 4) == []
    assert table.check() == []


def _users(inode: tuple[int, int]) -> list[str]:
    """Descriptors of any process on this file."""
    found = []
    for link_ in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            status = os.stat(link_)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == inode:
            found.append(str(link_))
    return found


def test_a_group_that_is_killed_leaves_nothing_of_an_unnamed_table() -> None:
    code = """
import os
from tests.multiprocess import content
table = content.make(1024)
for identity in range(10):
    table.add_sequence(identity, content.sequence(identity, 20, width=1024))
for _ in range(3):
    if os.fork() == 0:
        break
print(os.getpid(), table._core.arena._descriptor.fd, flush=True)
while True:
    table.sample(64, 4)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True, text=True
    ) as group:
        assert group.stdout is not None
        members = [group.stdout.readline().split() for _ in range(4)]
        status = os.stat("/proc/{}/fd/{}".format(*members[0]))
        inode = status.st_dev, status.st_ino
        # The name it was opened by is of no file system: nobody can come to it any more.
        assert status.st_nlink == 0
        assert {path.split("/")[2] for path in _users(inode)} == {pid for pid, _ in members}
        os.killpg(group.pid, signal.SIGKILL)
        group.wait(30)
    wait_until(lambda: _users(inode) == [])
