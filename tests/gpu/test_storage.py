"""Columns in a CUDA device's memory: what is promised of any device, and what only this one shows.

How the columns are written, gathered and handed on is tested without one in ``tests/device``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from shmtable import ArrayMemoryTable, DeviceMemoryError, PrioritizedSampleStrategy
from shmtable.columns.backend import CudaBackend
from tests.device.places import Cuda, Place
from tests.device.promises import *  # noqa: F403
from tests.device.promises import computed, here
from tests.gpu.waits import waits
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew
from tests.tables import small_sequence, torn_windows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

MakeTable = Callable[..., Any]
_LONG = 500_000_000  # cycles: some tenths of a second


@pytest.fixture
def there() -> Place:
    """The device."""
    return Cuda()


def test_a_sequence_that_is_still_being_made_is_added_when_it_is(make_table: MakeTable) -> None:
    table = make_table(storage_device="cuda")
    given = {n: torch.as_tensor(rows).to("cuda") for n, rows in small_sequence(7, 11).items()}
    unfinished = {name: torch.zeros_like(rows) for name, rows in given.items()}
    torch.cuda._sleep(_LONG)
    for name, rows in given.items():
        unfinished[name].copy_(rows)
    table.add_sequence(7, unfinished)
    for name, rows in given.items():
        assert torch.equal(table.sequence(7)[name], rows)


def _warm() -> None:
    """Have pinned memory of all small sizes ready: to take more may wait for everything."""
    backend = CudaBackend(torch.cuda.current_device())
    _ = [backend.staging(1 << bits) for bits in range(18) for _ in range(4)]


def test_a_sample_does_not_wait_for_the_callers_work_and_is_complete(table: Any) -> None:
    # What a program does for the first time, it may wait for everything to do.
    _warm()
    assert torn_windows(here(table.sample(64, 5)), 5) == []
    other: Any = torch.cuda.Stream()
    torch.cuda._sleep(_LONG)
    busy: Any = torch.cuda.Event()
    busy.record()
    sample = table.sample(64, 5)
    assert not busy.query()
    with torch.cuda.stream(other):  # which waits for nobody
        assert torn_windows(here(sample), 5) == []
    assert not busy.query()
    torch.cuda.synchronize()


def test_windows_drawn_anew_do_not_wait_either(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = CudaBackend.select
    going: list[int] = []

    def select(self: CudaBackend, rows: Any, index: Any) -> Any:
        found = original(self, rows, index)
        while going:
            table.remove(going.pop())
        return found

    monkeypatch.setattr(CudaBackend, "select", select)
    _warm()
    going += range(5)
    assert torn_windows(here(table.sample(64, 5)), 5) == []
    torch.cuda._sleep(_LONG)
    busy: Any = torch.cuda.Event()
    busy.record()
    going += range(5, 10)
    sample = table.sample(64, 5)
    assert going == [] and not busy.query()
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        assert torn_windows(here(sample), 5) == []
    assert int(sample.points.identities.min()) >= 10
    torch.cuda.synchronize()


@pytest.mark.parametrize("pad", [None, "zero"])
def test_a_sample_is_waited_for_once(make_table: MakeTable, pad: str | None) -> None:
    table = make_table(
        columns=computed(), pad=pad, sampler=PrioritizedSampleStrategy(), storage_device="cuda"
    )
    for identity in range(6):
        table.add_sequence(identity, small_sequence(identity, 4 + identity))
    for _ in range(3):
        table.sample(32, 3)
    # At its end, and not for a value in between.
    assert waits(lambda: table.sample(32, 3)) <= 1
    given = {n: torch.as_tensor(rows).to("cuda") for n, rows in small_sequence(9, 9).items()}
    assert waits(lambda: table.add_sequence(9, given)) <= 1


def test_rows_are_updated_in_deterministic_mode(table: Any) -> None:
    sample = table.sample(64, 5)
    torch.use_deterministic_algorithms(True)
    try:
        assert table.update(sample.points, "rewards", sample["rewards"]) == 64
    finally:
        torch.use_deterministic_algorithms(False)
    for identity in range(20):
        for name, rows in small_sequence(identity, 5 + identity).items():
            assert torch.equal(table.sequence(identity)[name].cpu(), torch.as_tensor(rows))


def test_what_used_the_memory_before_does_not_reach_the_table(make_table: MakeTable) -> None:
    size = 1 << 24
    torch.cuda.empty_cache()
    before = torch.zeros(size, dtype=torch.uint8, device="cuda")
    torch.cuda._sleep(_LONG)
    before.fill_(77)  # not before the table is there
    del before
    table = make_table(storage_device="cuda", maxlen=200_000, max_sequences=100)
    for identity in range(20):
        table.add_sequence(identity, small_sequence(identity, 24))
    torch.cuda.synchronize()
    for identity in range(20):
        for name, rows in small_sequence(identity, 24).items():
            assert torch.equal(table.sequence(identity)[name].cpu(), torch.as_tensor(rows))


def test_a_default_device_changes_nothing(make_table: MakeTable) -> None:
    with torch.device("cuda"):
        for options in ({"storage_device": "cuda"}, {"device": "cuda"}, {}):
            table = make_table(**options, pad="zero")
            table.add_sequence(1, small_sequence(1, 9))
            assert torn_windows(here(table.sample(8, 3)), 3) == []


def test_a_graph_is_captured_without_a_sample(table: Any) -> None:
    total = torch.zeros(4, device="cuda")
    total += 1
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with pytest.raises(DeviceMemoryError, match="a CUDA graph is being captured"):
            table.sample(64, 5)
        with pytest.raises(DeviceMemoryError, match="a CUDA graph is being captured"):
            table.add_sequence(99, small_sequence(99, 5))
        total += 1
    graph.replay()
    assert total.tolist() == [2, 2, 2, 2]
    assert torn_windows(here(table.sample(64, 5)), 5) == []
    table.add_sequence(99, small_sequence(99, 5))


def _seen_there(table: ArrayMemoryTable) -> tuple[str, str]:
    sample = table.sample(8, 3)
    assert content.wrong_with(here(sample), 3) == []
    return str(table.device), str(sample["obs"].device)


def test_a_device_may_have_another_number_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    last = torch.cuda.device_count() - 1
    with content.make(storage_device=f"cuda:{last}") as table:
        table.add_sequence(1, content.sequence(1, 9))
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", str(last)).split(",")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen[-1].strip())
        with Crew("spawn") as crew:
            crew.add(_seen_there, table)
            crew.go()
            assert crew.results() == [("cuda:0", "cuda:0")]


def _use_forked(table: ArrayMemoryTable) -> None:
    with pytest.raises(DeviceMemoryError, match="spawn or forkserver"):
        table.size()
    with pytest.raises(DeviceMemoryError, match="forked from one that had started CUDA"):
        content.make(storage_device="cuda")


def test_a_forked_child_is_refused(table: Any) -> None:
    with Crew("fork") as crew:
        crew.add(_use_forked, table)
        crew.go()
        crew.results()
    assert torn_windows(here(table.sample(8, 2)), 2) == []


def test_a_program_ends_cleanly() -> None:
    code = """
from tests.multiprocess import content
table = content.make(storage_device="cuda")
table.add_sequence(1, content.sequence(1, 9))
table.sample(8, 3)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, b"")
