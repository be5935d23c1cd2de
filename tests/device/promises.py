"""What is promised of columns on a device, whatever is there: a device, or what stands in for one.

Whoever imports these tests has a fixture ``there``, a ``Place``.
"""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    DeviceMemoryError,
    FrameStack,
    NextNElementWrapper,
    NStepDiscount,
    NStepReturn,
    PositionMapper,
    PreviousElementMapper,
    PrioritizedSampleStrategy,
    SharedMemoryError,
    TagColumn,
    UniformEjectionStrategy,
    VirtualColumn,
)
from shmtable.columns import DTYPES
from tests.device.places import Place
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link
from tests.tables import small_columns, small_sequence, torn_windows

MakeTable = Callable[..., Any]
WIDTH = 128


def here(sample: Any) -> dict[str, torch.Tensor]:
    return {name: column.cpu() for name, column in sample.items()}


@pytest.fixture
def table(make_table: MakeTable, there: Place) -> Any:
    """Twenty sequences of five to twenty-four steps on the device."""
    table = make_table(storage_device=there.storage_device)
    for identity in range(20):
        table.add_sequence(identity, small_sequence(identity, 5 + identity))
    return table


def test_samples_are_there_and_whole(table: Any, there: Place) -> None:
    for steps in (1, 5):
        sample = table.sample(64, steps)
        assert {column.device.type for column in sample.values()} == {there.storage_device}
        assert torn_windows(here(sample), steps) == []


def test_they_may_be_delivered_elsewhere(make_table: MakeTable, there: Place) -> None:
    table = make_table(storage_device=there.storage_device, device="cpu")
    table.add_sequence(1, small_sequence(1, 9))
    assert torn_windows(table.sample(16, 3), 3) == []


def test_sequences_from_anywhere_arrive(make_table: MakeTable, there: Place) -> None:
    table = make_table(storage_device=there.storage_device)
    for identity, source in enumerate(there.sources):
        given = small_sequence(identity, 11)
        table.add_sequence(identity, {n: torch.as_tensor(r).to(source) for n, r in given.items()})
        for name, rows in given.items():
            np.testing.assert_array_equal(table.sequence(identity)[name].cpu().numpy(), rows)


def computed() -> list[Column]:
    """A column of every kind."""
    rewards = ((), "float32", "rewards")
    return [
        *small_columns(),
        VirtualColumn("returns", *rewards, NStepReturn(3, 0.5)),
        VirtualColumn("cut", *rewards, NStepReturn(3, 0.5, "actions")),
        VirtualColumn("discount", *rewards, NStepDiscount(3, 0.5, "actions")),
        VirtualColumn("stack", (3, 3), "float32", "obs", FrameStack(3)),
        VirtualColumn("previous", *rewards, PreviousElementMapper()),
        VirtualColumn("position", (), "int64", "obs", PositionMapper()),
    ]


@pytest.mark.parametrize("pad", [None, "zero", "edge"])
def test_every_way_of_computing_a_column(
    make_table: MakeTable, there: Place, tmp_path: Path, pad: str | None
) -> None:
    options: dict[str, Any] = {
        "columns": computed(), "seed": 5, "pad": pad, "sampler": PrioritizedSampleStrategy(),
    }  # fmt: skip
    tables = [make_table(**options), make_table(**options, storage_device=there.storage_device)]
    for table in tables:
        for identity in range(6):
            table.add_sequence(identity, small_sequence(identity, 4 + identity))
    on_cpu, on_device = (table.sample(32, 6 if pad else 3) for table in tables)
    assert on_device.weights.device.type == there.storage_device
    for name, column in on_cpu.items():
        assert on_device[name].device.type == there.storage_device
        assert torch.equal(on_device[name].cpu(), column), name
    for number, (table, sample) in enumerate(zip(tables, (on_cpu, on_device), strict=True)):
        assert table.update_priorities(sample.points, torch.ones(32).to(table.device)) == 32
        steps = 6 if pad else 3
        table.update(sample.points, "rewards", torch.zeros(32, steps).to(table.device))
        table.store(tmp_path / str(number))
        table.clear()
        table.restore(tmp_path / str(number))
    for identity in range(6):
        one, other = (table.sequence(identity) for table in tables)
        assert all(torch.equal(one[name], other[name].cpu()) for name in one)


def test_it_may_be_made_in_inference_mode_and_used_after_it(
    make_table: MakeTable, there: Place
) -> None:
    with torch.inference_mode():
        table = make_table(storage_device=there.storage_device)
        table.add_sequence(1, small_sequence(1, 9))
        assert torn_windows(here(table.sample(16, 3)), 3) == []
    table.add_sequence(2, small_sequence(2, 9))
    sample = table.sample(16, 3)
    assert torn_windows(here(sample), 3) == []
    table.update(sample.points, "rewards", sample["rewards"])


def copied_bit_by_bit(near: Any, far: Any, brought: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Fill two tables of :func:`of_dtype` alike, every second sequence from there, and compare.

    Args:
        near: in shared memory.
        far: of the same seed, there.
        brought: a copy there of a tensor.
    """
    random = np.random.default_rng(1)
    dtype = near.columns[1].dtype

    def rows(*shape: int) -> torch.Tensor:
        bits = random.integers(0, 2, (*shape, dtype.itemsize), np.uint8)
        return torch.from_numpy(bits).view(dtype.torch).view(shape)

    for identity in range(9):
        sequence = {name: rows(8, *shape) for name, shape in _SHAPES.items()}
        tags = {f"tag {name}": rows(*shape) for name, shape in _SHAPES.items()}
        rest = {**tags, "actions": np.zeros(7, np.int8)}
        near.add_sequence(identity, {**sequence, **rest})
        if identity % 2:
            sequence = {name: brought(of) for name, of in sequence.items()}
        far.add_sequence(identity, {**sequence, **rest})
    for steps in (1, 4, 9):
        one, other = near.sample(24, steps), far.sample(24, steps)
        assert one.keys() == other.keys()
        for name in one:
            bits = [
                found.cpu().contiguous().view(torch.uint8) for found in (one[name], other[name])
            ]
            assert torch.equal(*bits), name


_SHAPES: dict[str, tuple[int, ...]] = {"one": (), "few": (3,), "many": (5, 40)}


def of_dtype(name: str) -> dict[str, Any]:
    """Options of a table with every kind of column of this dtype."""
    dtype = DTYPES[name]
    columns: list[Column] = [Column("actions", (), "int8")]
    for column, shape in _SHAPES.items():
        columns += [
            Column(column, shape, dtype),
            VirtualColumn(f"next {column}", shape, dtype, column, NextNElementWrapper(1)),
            VirtualColumn(f"previous {column}", shape, dtype, column, PreviousElementMapper()),
            VirtualColumn(f"frames {column}", (2, *shape), dtype, column, FrameStack(2)),
            TagColumn(f"tag {column}", shape, dtype),
        ]
    return {"columns": columns, "pad": "zero", "maxlen": 120, "seed": 5}


@pytest.mark.parametrize("name", list(DTYPES))
def test_every_dtype(make_table: MakeTable, there: Place, name: str) -> None:
    options = of_dtype(name)
    far = make_table(**options, storage_device=there.storage_device)
    copied_bit_by_bit(make_table(**options), far, lambda tensor: tensor.to(there.sources[-1]))


def _churn(table: ArrayMemoryTable, first: int, source: str) -> int:
    added = 0
    while not link().told():
        length = 1 + (first + added * 7) % 24
        given = content.sequence(first + added, length, version=added % 5, width=WIDTH)
        rows = {name: torch.as_tensor(value).to(source) for name, value in given.items()}
        table.add_sequence(first + added, rows)
        added += 1
    return added


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_windows_are_whole_while_others_write(
    make_table: MakeTable, there: Place, method: str
) -> None:
    table = make_table(
        columns=content.columns(WIDTH),
        maxlen=400,
        ejector=UniformEjectionStrategy(),
        storage_device=there.storage_device,
    )
    wrong: list[str] = []
    least = 1000 * there.effort

    def read(stream: Callable[[], Any]) -> None:
        samples = 0
        with stream():
            while not wrong and (samples < 30 or table.stats().transitions_added < least):
                steps = 1 + samples % 8
                found = content.wrong_with(here(table.sample(32, steps, timeout_s=60)), steps)
                wrong.extend(found)
                samples += 1

    with Crew(method) as crew:
        for number in range(2):
            source = there.sources[-1 - number % len(there.sources)]
            crew.add(_churn, table, number << 24, source)
        crew.go()
        readers = [threading.Thread(target=read, args=(one,)) for one in there.streams()]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        for member in crew.members:
            member.tell("stop")
        results = crew.results()
    assert wrong == []
    assert table.stats().sequences_added == sum(results)
    assert table.stats().transitions_added >= least


def _own(inbox: Any, there: Place) -> None:
    table = there.make()
    table.add_sequence(1, content.sequence(1, 9))
    inbox.put(table)
    link().tell("sent")
    link().hear()


def _receive(inbox: Any) -> None:
    table = inbox.get(timeout=60)
    assert content.wrong_with(here(table.sample(8, 3)), 3) == []
    link().tell("ready to lose it")
    link().hear()
    with pytest.raises(DeviceMemoryError, match="has ended"):
        table.sample(4, 2)
    with pytest.raises(DeviceMemoryError, match="has ended"):
        table.add_sequence(99, content.sequence(99, 5))


def test_the_owners_death_is_told(there: Place) -> None:
    with Crew("spawn") as crew:
        queue = crew.context.Queue()
        owner, other = crew.add(_own, queue, there), crew.add(_receive, queue)
        crew.go()
        assert owner.hear() == "sent"
        assert other.hear() == "ready to lose it"
        owner.kill()
        owner.join()
        other.tell("go on")
        other.join()
        queue.close()
        queue.join_thread()


def test_more_than_there_is_is_refused(make_table: MakeTable, there: Place) -> None:
    row, total = 1 << 16, there.total()
    options: dict[str, Any] = {
        "columns": [Column("actions", (row,), "uint8")], "storage_device": there.storage_device,
    }  # fmt: skip
    with pytest.raises(SharedMemoryError, match="has no room for [0-9]* bytes") as caught:
        make_table(**options, maxlen=2 * total // row, max_sequences=10)
    assert caught.value.asked_bytes > total > caught.value.free_bytes
    table = make_table(**options, maxlen=10)
    table.add_sequence(1, {"actions": np.ones((5, row), np.uint8)})
    with pytest.raises(SharedMemoryError, match="has no room for a copy of rows"):
        table.sample(2 * total // row, 1)
    assert table.check() == []
    assert table.sample(2, 3)["actions"].cpu().all()
    table.add_sequence(2, {"actions": np.ones((5, row), np.uint8)})
    assert table.size() == 10


def test_samples_leave_no_memory_behind(table: Any, there: Place) -> None:
    table.sample(64, 5)
    before = there.used()
    for _ in range(1000 * there.effort):
        table.sample(64, 5)
    assert there.used() <= before + (1 << 20)


def _attach_and_close(inbox: Any, there: Place, rounds: int) -> int:
    used = []
    for _ in range(rounds):
        with inbox.get(timeout=60) as table:
            assert content.wrong_with(here(table.sample(4, 2)), 2) == []
        del table
        gc.collect()
        used.append(there.used())
        link().tell("closed")
        link().hear()
    return max(used[rounds // 20 :]) - used[0]


def test_attaching_leaves_no_memory_behind(there: Place) -> None:
    rounds = 20 * there.effort
    before = there.used()
    with there.make() as table, Crew("spawn") as crew:
        table.add_sequence(1, content.sequence(1, 9))
        held = there.used()
        assert held > before
        queue = crew.context.Queue()
        member = crew.add(_attach_and_close, queue, there, rounds)
        crew.go()
        for number in range(rounds):
            queue.put(table)
            assert member.hear() == "closed"
            if number < rounds - 1:
                member.tell("again")
        assert there.used() <= held
        member.tell("done")
        member.join()
        queue.close()
        queue.join_thread()
    assert member.result <= 1 << 20
    del table
    gc.collect()
    assert there.used() <= before


def _keep(table: ArrayMemoryTable, kept: list[Any]) -> None:
    assert content.wrong_with(here(table.sample(4, 2)), 2) == []
    kept.append(table)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_just_end_leave_no_memory_behind(there: Place, method: str) -> None:
    before = there.used()
    table = there.make()
    table.add_sequence(1, content.sequence(1, 9))
    with Crew(method) as crew:
        for _ in range(2):
            crew.add(_keep, table, [])
        crew.go()
        crew.results()
    table.close()
    del table
    gc.collect()
    assert there.used() <= before


def test_closing_gives_the_memory_back(there: Place) -> None:
    before = there.used()
    table = there.make()
    with pickle.loads(pickle.dumps(table)) as twin:
        twin.add_sequence(1, content.sequence(1, 5))
    assert there.used() > before
    table.close()
    del table, twin
    gc.collect()
    assert there.used() <= before


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    gc.collect()  # what earlier tests have left is not to be given back in the midst of one
    yield
