"""Columns in a CUDA device's memory: what only a device can show.

How the columns are written, gathered and handed on is tested without one in ``tests/device``.
"""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    DeviceMemoryError,
    NStepReturn,
    PrioritizedSampleStrategy,
    SharedMemoryError,
    UniformEjectionStrategy,
    VirtualColumn,
)
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link
from tests.tables import small_columns, small_sequence, torn_windows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

MakeTable = Callable[..., Any]
WIDTH = 128


@pytest.fixture
def table(make_table: MakeTable) -> Any:
    """Twenty sequences of five to twenty-four steps on the device."""
    table = make_table(storage_device="cuda")
    for identity in range(20):
        table.add_sequence(identity, small_sequence(identity, 5 + identity))
    return table


def here(sample: Any) -> dict[str, torch.Tensor]:
    return {name: column.cpu() for name, column in sample.items()}


def test_samples_are_on_the_device_and_whole(table: Any) -> None:
    for steps in (1, 5):
        sample = table.sample(64, steps)
        assert {column.device.type for column in sample.values()} == {"cuda"}
        assert torn_windows(here(sample), steps) == []


def test_they_may_be_delivered_elsewhere(make_table: MakeTable) -> None:
    table = make_table(storage_device="cuda:0", device="cpu")
    table.add_sequence(1, small_sequence(1, 9))
    assert torn_windows(table.sample(16, 3), 3) == []


@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_sequences_from_either_side_arrive(make_table: MakeTable, place: str) -> None:
    table = make_table(storage_device="cuda")
    given = {n: torch.as_tensor(rows).to(place) for n, rows in small_sequence(7, 11).items()}
    if place == "cuda":  # begun and not finished when it is added
        busy = torch.zeros(4096, 4096, device="cuda")
        for _ in range(50):
            busy = busy @ busy
        given["rewards"] = given["rewards"] + busy[0, 0]
    table.add_sequence(7, given)
    for name, rows in small_sequence(7, 11).items():
        np.testing.assert_array_equal(table.sequence(7)[name].cpu().numpy(), rows)


def test_every_way_of_computing_a_column(make_table: MakeTable, tmp_path: Path) -> None:
    columns = [
        *small_columns(),
        VirtualColumn("returns", (), "float32", "rewards", NStepReturn(3, 0.5)),
    ]
    options: dict[str, Any] = {
        "columns": columns, "seed": 5, "pad": "zero", "sampler": PrioritizedSampleStrategy(),
    }  # fmt: skip
    tables = [make_table(**options), make_table(**options, storage_device="cuda")]
    for table in tables:
        for identity in range(6):
            table.add_sequence(identity, small_sequence(identity, 4 + identity))
    on_cpu, on_device = (table.sample(32, 6) for table in tables)
    assert on_device.weights.device.type == "cuda"
    for name, column in on_cpu.items():
        assert on_device[name].device.type == "cuda"
        assert torch.equal(on_device[name].cpu(), column), name
    for table, sample in zip(tables, (on_cpu, on_device), strict=True):
        assert table.update_priorities(sample.points, torch.ones(32).to(table.device)) == 32
        table.update(sample.points, "rewards", torch.zeros(32, 6).to(table.device))
        table.store(tmp_path / table.device.type)
        table.clear()
        table.restore(tmp_path / table.device.type)
    for identity in range(6):
        one, other = (table.sequence(identity) for table in tables)
        assert all(torch.equal(one[name], other[name].cpu()) for name in one)


def _churn(table: ArrayMemoryTable, first: int, place: str) -> int:
    added = 0
    while not link().told():
        length = 1 + (first + added * 7) % 24
        given = content.sequence(first + added, length, version=added % 5, width=WIDTH)
        rows = {name: torch.as_tensor(value).to(place) for name, value in given.items()}
        table.add_sequence(first + added, rows)
        added += 1
    return added


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_windows_are_whole_while_others_write(make_table: MakeTable, method: str) -> None:
    table = make_table(
        columns=content.columns(WIDTH),
        maxlen=400,
        ejector=UniformEjectionStrategy(),
        storage_device="cuda",
    )
    with Crew(method) as crew:
        crew.add(_churn, table, 0, "cuda")
        crew.add(_churn, table, 1 << 24, "cpu")
        crew.go()
        other = torch.cuda.Stream()
        wrong: list[str] = []
        samples = 0
        while not wrong and (samples < 300 or table.stats().transitions_added < 16_000):
            steps = 1 + samples % 8
            with torch.cuda.stream(other if samples % 2 else torch.cuda.default_stream()):
                sample = table.sample(32, steps, timeout_s=60)
                wrong = content.wrong_with(here(sample), steps)
            samples += 1
        for member in crew.members:
            member.tell("stop")
        results = crew.results()
    assert wrong == []
    assert table.stats().sequences_added == sum(results)


def _wait_for_death(table: ArrayMemoryTable) -> None:
    table.sample(4, 2)
    link().tell("ready to lose it")
    link().hear()
    with pytest.raises(DeviceMemoryError, match="has ended"):
        table.sample(4, 2)
    with pytest.raises(DeviceMemoryError, match="has ended"):
        table.add_sequence(99, content.sequence(99, 5))


def _own(inbox: Any) -> None:
    table = content.make(storage_device="cuda")
    table.add_sequence(1, content.sequence(1, 9))
    inbox.put(table)
    link().tell("sent")
    link().hear()


def _receive(inbox: Any) -> None:
    _wait_for_death(inbox.get(timeout=60))


def test_the_owners_death_is_told() -> None:
    with Crew("spawn") as crew:
        queue = crew.context.Queue()
        owner, other = crew.add(_own, queue), crew.add(_receive, queue)
        crew.go()
        assert owner.hear() == "sent"
        assert other.hear() == "ready to lose it"
        owner.kill()
        owner.join()
        other.tell("go on")
        other.join()
        queue.close()
        queue.join_thread()


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


def test_more_than_the_device_has_is_refused(make_table: MakeTable) -> None:
    row = 1 << 16
    options: dict[str, Any] = {
        "columns": [Column("actions", (row,), "uint8")], "storage_device": "cuda",
    }  # fmt: skip
    _, total = torch.cuda.mem_get_info()
    with pytest.raises(SharedMemoryError, match="cuda:0 has no room for") as caught:
        make_table(**options, maxlen=2 * total // row, max_sequences=10)
    assert caught.value.asked_bytes > total > caught.value.free_bytes
    table = make_table(**options, maxlen=10)
    table.add_sequence(1, {"actions": np.ones((5, row), np.uint8)})
    with pytest.raises(SharedMemoryError, match="a copy of rows"):
        table.sample(2 * total // row, 1)
    assert table.check() == []
    assert table.sample(2, 3)["actions"].cpu().all()


def test_samples_leave_no_memory_behind(table: Any) -> None:
    table.sample(64, 5)
    before = torch.cuda.memory_allocated()
    for _ in range(10_000):
        table.sample(64, 5)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before + (1 << 20)


def _attach_and_close(inbox: Any, rounds: int) -> int:
    used = []
    for _ in range(rounds):
        with inbox.get(timeout=60) as table:
            assert content.wrong_with(here(table.sample(4, 2)), 2) == []
        del table
        gc.collect()
        used.append(torch.cuda.memory_allocated())
        link().tell("closed")
        link().hear()
    return max(used[10:]) - used[0]


def test_attaching_leaves_no_memory_behind(make_table: MakeTable) -> None:
    rounds = 200
    table = make_table(columns=content.columns(), storage_device="cuda")
    table.add_sequence(1, content.sequence(1, 9))
    with Crew("spawn") as crew:
        queue = crew.context.Queue()
        member = crew.add(_attach_and_close, queue, rounds)
        crew.go()
        free = 0
        for number in range(rounds):
            queue.put(table)
            assert member.hear() == "closed"
            if number == 10:
                free, _ = torch.cuda.mem_get_info()
            if number < rounds - 1:
                member.tell("again")
        left, _ = torch.cuda.mem_get_info()
        member.tell("done")
        member.join()
        queue.close()
        queue.join_thread()
    assert member.result <= 1 << 20
    assert free - left <= 8 << 20


def test_closing_gives_the_memory_back(make_table: MakeTable) -> None:
    before = torch.cuda.memory_allocated()
    table = make_table(storage_device="cuda")
    with pickle.loads(pickle.dumps(table)) as twin:
        twin.add_sequence(1, small_sequence(1, 5))
    table.close()
    del table, twin
    gc.collect()
    torch.cuda.ipc_collect()
    assert torch.cuda.memory_allocated() <= before


def test_a_program_ends_cleanly() -> None:
    code = """
from tests.multiprocess import content
table = content.make(storage_device="cuda")
table.add_sequence(1, content.sequence(1, 9))
table.sample(8, 3)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, b"")
