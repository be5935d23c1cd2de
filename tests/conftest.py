"""What every test shares: a table that is checked afterwards, and a guard against leftovers."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import select
import signal
import uuid
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import pytest
import torch

# The workers of a parallel run share the cores, and a test that forks must not inherit a pool
# of threads unless it asks for one.
torch.set_num_threads(1)

try:
    import hypothesis
except ImportError:  # the GPU tests run in whatever interpreter there is
    pass
else:
    # Examples take as long as the machine is busy; a deadline would measure the neighbours.
    hypothesis.settings.register_profile("house", deadline=None, print_blob=True)
    # A failure in an unattended run must come back when somebody looks at it.
    hypothesis.settings.register_profile(
        "unattended", parent=hypothesis.settings.get_profile("house"), derandomize=True
    )
    hypothesis.settings.load_profile("unattended" if os.environ.get("CI") else "house")

# Part of every name given to a table here: another test run on this machine has another one.
_RUN = f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{uuid.uuid4().hex[:8]}"
_NAMES = itertools.count()
_SHM = Path("/dev/shm")
_PARTING_S = 2.0
_RAYS = Path(__file__).parent / "integrations" / "ray"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Ray's tests come last.

    A process that has been in a cluster keeps threads of gRPC, which take locks in C++. A test
    that forks it then may have a child that waits for such a lock for ever.
    """
    items.sort(key=lambda item: _RAYS in item.path.parents)


@pytest.fixture
def unique_name() -> Callable[[], str]:
    """Gives names for named tables that no other test, worker or run uses."""
    return lambda: f"{_RUN}-{next(_NAMES)}"


@pytest.fixture
def make_table(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes tables (small columns unless ``columns=``), checks and closes them afterwards."""
    from shmtable import ArrayMemoryTable, FifoEjectionStrategy, UniformSampleStrategy
    from shmtable.errors import ClosedError
    from tests.tables import small_columns

    made = []

    def make(**overrides: Any) -> ArrayMemoryTable:
        options: dict[str, Any] = {
            "columns": small_columns(),
            "maxlen": 1000,
            "sampler": UniformSampleStrategy(),
            "ejector": FifoEjectionStrategy(),
            "length_key": "actions",
        }
        options.update(overrides)
        table = ArrayMemoryTable(**options)
        made.append(table)
        return table

    yield make
    findings = []
    for table in made:
        try:
            findings += [str(finding) for finding in table.check()]
        except ClosedError:
            continue
        finally:
            table.close()
    assert findings == []


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """No test leaves a child process or a named table of its own."""
    children = _children()
    yield
    leftovers = [_end(pid) for pid in sorted(_children() - children)]
    tables = []
    if _SHM.is_dir():
        for path in _SHM.glob(f"shmtable*{_RUN}*"):
            tables.append(path.name)
            path.unlink(missing_ok=True)
    said = [text for text in leftovers if text]
    assert said == [], f"the test left child processes: {said}"
    assert tables == [], f"the test left named tables in /dev/shm: {tables}"


def _children() -> set[int]:
    """Ids of this process's children, without the standard library's own caretakers."""
    multiprocessing.active_children()  # reaps those that have ended
    pids: set[int] = set()
    try:
        for task in Path("/proc/self/task").iterdir():
            pids.update(int(pid) for pid in (task / "children").read_text().split())
    except OSError:  # no /proc: what multiprocessing knows of
        pids.update(child.pid or 0 for child in multiprocessing.active_children())
    for keeper in (
        getattr(resource_tracker._resource_tracker, "_pid", None),
        getattr(forkserver._forkserver, "_forkserver_pid", None),
    ):
        pids.discard(keeper or 0)
    return pids


def _end(pid: int) -> str:
    """What to say of a child that a test left: nothing when it ends by itself at once."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):
        command, descriptor = "", -1
    if descriptor >= 0:
        ended, _, _ = select.select([descriptor], [], [], _PARTING_S)
        os.close(descriptor)
        if ended and pid not in _children():
            return ""
        if ended:
            return f"pid {pid} ended and was never waited for: {command}"
    elif pid not in _children():
        return ""
    os.kill(pid, signal.SIGKILL)
    return f"pid {pid} still running: {command}"
