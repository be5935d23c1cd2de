"""The program as people start it: it learns, tells, and leaves no process behind."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

DEADLINE_S = 180.0  # three interpreters importing torch on a busy machine
ROOT = Path(__file__).parents[2]
QUICK = ["--warmup", "100", "--exploration", "500", "--evaluate-every", "20"]


class Demo:
    """A running demo, in a process group of its own like a shell's job."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "shmtable.demo", "--output", str(folder / "out"), *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.said = ""

    def hear(self, pattern: str) -> re.Match[str]:
        """Reads until something matches; fails when it ends before or is silent for long."""
        assert self.process.stdout is not None
        until = time.monotonic() + DEADLINE_S
        while not (found := re.search(pattern, self.said)):
            left = until - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            assert ready, f"{pattern!r} never came:\n{self.said}"
            chunk = os.read(self.process.stdout.fileno(), 65536)
            assert chunk, f"ended before {pattern!r}:\n{self.said}"
            self.said += chunk.decode()
        return found

    def actors(self) -> list[int]:
        """Process ids of the actors, as the demo tells them when it starts."""
        line = self.hear(r".* are starting.*\n").group()
        return [int(pid) for pid in re.findall(r"\(pid (\d+)\)", line)]

    def ctrl_c(self) -> None:
        """What a terminal does: the signal goes to every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> int:
        """Waits for the end; the exit code."""
        rest, _ = self.process.communicate(timeout=DEADLINE_S)
        self.said += rest.decode()
        return self.process.returncode


@contextmanager
def watched(pids: list[int]) -> Iterator[None]:
    """Fails unless all these processes end within or soon after the block."""
    descriptors = {}
    for pid in pids:
        with suppress(ProcessLookupError):  # has ended already
            descriptors[pid] = os.pidfd_open(pid)
    try:
        yield
        until = time.monotonic() + DEADLINE_S
        for pid, descriptor in descriptors.items():
            ended, _, _ = select.select([descriptor], [], [], max(until - time.monotonic(), 0))
            assert ended, f"process {pid} is still there"
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def assert_group_ends(leader: int) -> None:
    """Fails unless every process of a group has ended, or does so without being told to.

    The actors must be gone before the demo is; the standard library's resource tracker goes
    when it sees that the demo has gone.
    """
    with watched(group(leader)):
        pass
    assert group(leader) == []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    """Starts demos and sees to it that nothing of them outlives the test."""
    demos = []

    def start(*arguments: str) -> Demo:
        demos.append(Demo(tmp_path, *arguments))
        return demos[-1]

    yield start
    for demo in demos:
        with suppress(ProcessLookupError):
            os.killpg(demo.process.pid, signal.SIGKILL)
        demo.process.communicate()


def group(leader: int) -> list[int]:
    """Process ids of a group, without those that only wait to be collected."""
    running = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended while we looked
            # After the command in brackets: state, parent, group.
            state, _, pgid = path.read_text().rpartition(")")[2].split()[:3]
            if int(pgid) == leader and state not in "ZX":
                running.append(int(path.parent.name))
    return running


needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="watches processes by pidfd, which only Linux has"
)


@needs_pidfd
def test_a_short_run_reaches_its_goal_and_leaves_only_a_picture(start, tmp_path):
    demo = start(*QUICK, "--threshold", "9", "--evaluation-episodes", "3")
    with watched(demo.actors()):
        assert demo.end() == 0, demo.said
    assert "outcome  solved (exit code 0)" in demo.said
    assert re.search(r"sample latency  p50 [1-9]\d* µs, p99 [1-9]\d* µs", demo.said)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [
        Path("out"),
        Path("out/demo.png"),
    ]
    assert_group_ends(demo.process.pid)


@needs_pidfd
def test_a_lost_actor_is_named_the_others_go_on_and_ctrl_c_ends_it(start):
    demo = start(*QUICK, "--threshold", "501")
    actors = demo.actors()
    assert len(actors) == 2
    with watched(actors):
        demo.hear(r"updates [1-9]")
        os.kill(actors[0], signal.SIGKILL)
        demo.hear(
            rf"actor-0 \(pid {actors[0]}\) was ended by SIGKILL; "
            "1 of 2 actors are left"
        )
        before = demo.hear(r"episodes (\d+)(?![\s\S]*episodes)").group(1)
        demo.said = ""
        assert int(demo.hear(r"episodes (\d+)").group(1)) > int(before)
        demo.ctrl_c()
        assert demo.end() == 130, demo.said
    assert "not solved: interrupted (exit code 130)" in demo.said
    assert "Traceback" not in demo.said
    assert_group_ends(demo.process.pid)


@needs_pidfd
def test_ctrl_c_while_the_actors_are_still_starting(start):
    demo = start(*QUICK)
    with watched(demo.actors()):
        demo.ctrl_c()
        assert demo.end() == 130, demo.said
    assert "Traceback" not in demo.said
    assert_group_ends(demo.process.pid)


@needs_pidfd
def test_actors_do_not_outlive_a_killed_learner(start):
    demo = start(*QUICK, "--threshold", "501")
    with watched(demo.actors()):
        demo.hear(r"updates [1-9]")
        demo.process.kill()
        assert demo.process.wait() == -signal.SIGKILL
