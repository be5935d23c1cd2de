"""Which process is gone, and what happens around a fork."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from shmtable.shm import process
from tests.shm.helpers import wait_until

NO_SUCH_PID = 2**22 + 5  # above the largest that Linux gives


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A living process with a command line worth showing."""
    with subprocess.Popen(["sleep", "1000"]) as child:
        yield child
        child.kill()


@pytest.fixture(params=["pidfd", "without pidfd"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether ``os.pidfd_open`` is there."""
    if request.param == "without pidfd":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    return request.param == "pidfd"


def test_this_process() -> None:
    me = process.current()
    assert me.pid == os.getpid() and me.start > 0
    assert process.current() is me
    assert not process.is_gone(me.pid, me.start)
    assert not process.is_gone(me.pid, 0)
    assert process.is_gone(me.pid, me.start - 1)


def test_start_time_survives_strange_names(sleeper: subprocess.Popen[bytes]) -> None:
    code = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, b") (R 1 2", 0, 0, 0)  # PR_SET_NAME
print(flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        assert process.start_time(child.pid) >= process.start_time(sleeper.pid) > 0
        child.stdin.close()


def test_a_living_process_is_not_gone(either_way: bool, sleeper: subprocess.Popen[bytes]) -> None:
    start = process.start_time(sleeper.pid)
    assert not process.is_gone(sleeper.pid, start)
    assert not process.is_gone(sleeper.pid, 0)
    assert process.is_gone(sleeper.pid, start + 1)  # the number was given again


def test_a_stopped_process_is_not_gone(either_way: bool, sleeper: subprocess.Popen[bytes]) -> None:
    start = process.start_time(sleeper.pid)
    os.kill(sleeper.pid, 19)
    assert not process.is_gone(sleeper.pid, start)
    os.kill(sleeper.pid, 18)


def test_a_reaped_process_is_gone(either_way: bool, sleeper: subprocess.Popen[bytes]) -> None:
    start = process.start_time(sleeper.pid)
    sleeper.kill()
    sleeper.wait(30)
    assert process.is_gone(sleeper.pid, start)
    assert process.is_gone(NO_SUCH_PID, 5)


def test_a_zombie_is_gone_only_when_the_kernel_proves_it(
    either_way: bool, sleeper: subprocess.Popen[bytes]
) -> None:
    start = process.start_time(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # ended, not reaped
    assert process.is_gone(sleeper.pid, start) is either_way


def test_a_process_whose_first_thread_has_ended_is_not_gone(either_way: bool) -> None:
    code = """
import ctypes, sys, threading
def work():
    print(flush=True)
    sys.stdin.read()
    import os; os._exit(0)
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        start = process.start_time(child.pid)
        for _ in range(1000):
            if ") Z " in Path(f"/proc/{child.pid}/stat").read_text():
                break
        assert not process.is_gone(child.pid, start)
        child.stdin.close()


@pytest.mark.parametrize("error", [PermissionError, OSError])
def test_a_refused_call_proves_nothing(
    error: type[OSError], sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise error(1, "no")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    start = process.start_time(sleeper.pid)
    assert not process.is_gone(sleeper.pid, start)
    assert process.is_gone(sleeper.pid, start + 1)
    assert not process.is_gone(NO_SUCH_PID, 5)
    monkeypatch.setattr(process, "start_time", lambda pid: 0)
    assert not process.is_gone(sleeper.pid, start + 1)


def test_a_thread_number_is_not_its_process() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert not process.is_gone(thread.native_id or 0, 0)
    stop.set()
    thread.join()


def test_nonsense_is_not_gone() -> None:
    for pid in (0, -1, -(2**40)):
        assert not process.is_gone(pid, 5)


def test_command(sleeper: subprocess.Popen[bytes]) -> None:
    # A moment after its start a process has no command line yet.
    wait_until(lambda: process.command(sleeper.pid) == "sleep 1000")
    assert process.command(NO_SUCH_PID) == ""
    long = ["cat", "-", "\x1b[31m" + "x" * 500]
    with subprocess.Popen(long, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: process.command(child.pid))
        text = process.command(child.pid)
        child.kill()
    assert len(text) == 120 and text.endswith("...") and text.isprintable()


def test_numbers_of_the_machine_fit_a_word() -> None:
    assert 0 < process.boot_id() < 2**63
    assert 0 < process.pid_namespace() < 2**63
    assert process.boot_id() == process.boot_id()


# -- fork ----------------------------------------------------------------------------------------


def in_child(body: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = body()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_knows_itself() -> None:
    before = process.current()
    assert in_child(lambda: int(process.current().pid == os.getpid() != before.pid)) == 1
    assert process.current() is before


def test_a_forked_child_uses_one_thread() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert in_child(torch.get_num_threads) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


class Hooked:
    """Notes which of its hooks ran."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes
        process.around_fork(self.before, self.parent)
        process.after_fork(self.child)

    def before(self) -> None:
        self.notes.append(f"before {self.name}")

    def parent(self) -> None:
        self.notes.append(f"parent {self.name}")

    def child(self) -> None:
        self.notes.append(f"child {self.name}")


def test_hooks_run_in_order() -> None:
    notes: list[str] = []
    hooks = [Hooked(name, notes) for name in "ab"]
    expected = ["before b", "before a"]
    assert in_child(lambda: int(notes == [*expected, "child a", "child b"])) == 1
    assert notes == [*expected, "parent a", "parent b"]
    assert len(hooks) == 2


def test_hooks_are_held_weakly() -> None:
    notes: list[str] = []
    Hooked("gone", notes)
    assert in_child(lambda: len(notes)) == 0
    assert notes == []


def test_what_was_begun_before_is_undone_after() -> None:
    notes: list[str] = []

    class Short(Hooked):
        def before(self) -> None:
            super().before()
            kept.clear()  # nobody else refers to it from here on

    kept = [Short("short", notes)]
    assert in_child(lambda: len(kept)) == 0
    assert notes == ["before short", "parent short"]


def test_a_failing_hook_does_not_keep_others_from_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[str] = []
    bad, good = Hooked("bad", notes), Hooked("good", notes)
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    bad.notes = None  # type: ignore[assignment]
    assert in_child(lambda: int("child good" in notes)) == 1
    assert notes == ["before good", "parent good"]
    assert good.notes is notes


def test_who_locks_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    assert process.locker(str(path)) == "another process"
    with path.open("w") as file:
        assert process.locker(str(path)) == "another process"
        fcntl.flock(file, fcntl.LOCK_EX)
        child = subprocess.Popen(
            ["flock", str(path), "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:  # the one that waits for it is not the one that has it
            assert re.fullmatch(rf"process {os.getpid()} \(.*\)", process.locker(str(path)))
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
            assert child.wait(30) == 0
