"""A device's memory: made once, handed on by its maker, and lost with it."""

from __future__ import annotations

import gc
import multiprocessing.util
import os
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    CapacityError,
    Column,
    DeviceMemoryError,
    PrioritizedSampleStrategy,
    SharedMemoryError,
    SpecError,
    UniformEjectionStrategy,
)
from shmtable import table as table_module
from shmtable.errors import ArenaError
from shmtable.index import fields as f
from shmtable.protocols.device import storage_backend
from tests.device.backends import FileBackend, FileHandle
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., Any]


def backend(table: Any) -> FileBackend:
    return table._core.memory.backend


# -- handing on ----------------------------------------------------------------------------------


def _sample(table: ArrayMemoryTable, count: int) -> int:
    table.add_sequence(os.getpid(), content.sequence(os.getpid() % 1000, 9))
    for _ in range(count):
        assert content.wrong_with(table.sample(8, 3), 3) == []
    return table.size()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_one_handle_for_each_process_and_none_for_a_sample(
    make_table: MakeTable, method: str
) -> None:
    table = make_table(columns=content.columns())
    table.add_sequence(1, content.sequence(1, 9))
    for _ in range(50):
        table.sample(4, 2)
    assert backend(table).handles == 0
    with Crew(method) as crew:
        for _ in range(2):
            crew.add(_sample, table, 50)
        crew.go()
        crew.results()
    assert backend(table).handles == 2
    assert table.size() == 27
    for identity in table.identities().tolist()[1:]:
        assert table.sequence(identity)["obs"].shape == (10, 4)


def test_in_its_own_process_it_is_the_same_memory(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = []
    table = make_table()
    data = pickle.dumps(table)
    monkeypatch.setattr(FileHandle, "drop", lambda handle: dropped.append(handle))
    with pickle.loads(data) as twin:
        assert twin._core.memory is table._core.memory
        assert len(dropped) == 1  # nobody holds the memory by this handle
        twin.add_sequence(1, small_sequence(1, 5))
        table.close()
        assert torn_windows(twin.sample(8, 2), 2) == []


class _ElsewhereHandle(FileHandle):
    """Of a device that has another number in the process it comes to."""

    def attach(self) -> Any:
        found, memory = super().attach()
        found.device = torch.device("cpu", 1)
        return found, memory


def _delivers_on(table: ArrayMemoryTable) -> str:
    table.add_sequence(1, content.sequence(1, 9))
    assert content.wrong_with(table.sample(8, 3), 3) == []
    return str(table.device)


def test_a_table_delivers_where_its_columns_are_whatever_their_devices_number_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = FileBackend.export

    def export(self: FileBackend, memory: torch.Tensor) -> FileHandle:
        handle = original(self, memory)
        return _ElsewhereHandle(handle.path, handle.size)  # type: ignore[attr-defined]

    monkeypatch.setattr(FileBackend, "export", export)
    with content.make() as one, content.make(device="cpu:0") as other, Crew("spawn") as crew:
        crew.add(_delivers_on, one)
        crew.add(_delivers_on, other)
        crew.go()
        assert crew.results() == ["cpu:1", "cpu:0"]


def _come_by_it_in_inference_mode(inbox: Any) -> None:
    with torch.inference_mode():
        table = inbox.get(timeout=60)
    table.add_sequence(2, content.sequence(2, 9))


def test_it_may_be_had_in_inference_mode_and_written_to_after_it() -> None:
    with torch.inference_mode():
        table = content.make()
    table.add_sequence(1, content.sequence(1, 9))
    with table, Crew("spawn") as crew:
        queue = crew.context.Queue()
        crew.add(_come_by_it_in_inference_mode, queue)
        crew.go()
        queue.put(table)
        crew.results()
        queue.close()
        queue.join_thread()
        assert table.size() == 18
        assert content.wrong_with(table.sample(32, 3), 3) == []


def test_closing_frees_the_memory(make_table: MakeTable) -> None:
    table = make_table()
    table.add_sequence(1, small_sequence(1, 5))
    found = table.sample(4, 2)
    memory = weakref.ref(table._core.memory.tensor)
    gc.disable()
    try:
        table.close()
        assert memory() is None
    finally:
        gc.enable()
    assert torn_windows(found, 2) == []


def test_who_finds_no_table_any_more_holds_no_memory_of_it(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = []
    monkeypatch.setattr(FileHandle, "drop", lambda handle: dropped.append(handle))
    table = make_table()
    data = pickle.dumps(table)
    table.close()
    with pytest.raises(ArenaError):
        pickle.loads(data)
    assert len(dropped) == 1


_kept: list[ArrayMemoryTable] = []


def _keep_to_the_end(table: ArrayMemoryTable, report: Path) -> None:
    assert content.wrong_with(table.sample(8, 3), 3) == []
    _kept.append(table)  # as a program does that never thinks of it
    laid = table._core.storage._laid
    views = [table._core.memory.tensor, laid.windows(0, 3, 0)]
    views += [part.memory for part in laid.regions] + [item.rows for item in laid.items.values()]
    left = [weakref.ref(view) for view in views]

    def look() -> None:
        report.write_text(f"{sum(view() is not None for view in left)} of {len(left)}")

    # As late as anything happens in a child of multiprocessing.
    multiprocessing.util.Finalize(None, look, exitpriority=-1)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_that_ends_has_let_go_of_it(
    make_table: MakeTable, tmp_path: Path, method: str
) -> None:
    table = make_table(columns=content.columns())
    table.add_sequence(1, content.sequence(1, 9))
    with Crew(method) as crew:
        crew.add(_keep_to_the_end, table, tmp_path / "left")
        crew.go()
        crew.results()
    assert (tmp_path / "left").read_text() == "0 of 9"
    assert content.wrong_with(table.sample(8, 3), 3) == []


def _pass_on(table: ArrayMemoryTable) -> str:
    with pytest.raises(DeviceMemoryError) as caught:
        pickle.dumps(table)
    assert table.size() == 5
    return str(caught.value)


def test_only_its_maker_passes_it_on(make_table: MakeTable) -> None:
    table = make_table()
    table.add_sequence(1, small_sequence(1, 5))
    with Crew("spawn") as crew:
        crew.add(_pass_on, table)
        crew.go()
        (text,) = crew.results()
    assert f"in memory of process {os.getpid()}, and only that process can pass" in text


def _attach(name: str) -> str:
    with pytest.raises(ArenaError) as caught:
        ArrayMemoryTable.attach(name)
    return str(caught.value)


def test_a_name_does_not_lead_to_it(make_table: MakeTable, unique_name: Callable[[], str]) -> None:
    name = unique_name()
    table = make_table(name=name)
    with Crew("spawn") as crew:
        crew.add(_attach, name)
        crew.go()
        (text,) = crew.results()
    assert "where a name does not lead; pass the table itself to processes" in text
    with ArrayMemoryTable.attach(name) as twin:  # where it is there already, it is found
        table.add_sequence(1, small_sequence(1, 5))
        assert torn_windows(twin.sample(4, 2), 2) == []


# -- making it -----------------------------------------------------------------------------------


def test_memory_that_is_not_there_makes_no_table(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, unique_name: Callable[[], str]
) -> None:
    small = FileBackend(room=30_000)
    monkeypatch.setattr(table_module, "storage_backend", lambda *_: small)
    name = unique_name()
    with pytest.raises(SharedMemoryError, match="no room for"):
        make_table(name=name, maxlen=1000)
    make_table(name=name, maxlen=100)  # and the name is free


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"max_sequences": 10}, 1250 + 12),
        ({}, 1250 + 1002),
        ({"max_sequences": 10, "on_duplicate": "replace"}, 3000 + 12),
    ],
)
def test_so_much_is_taken(make_table: MakeTable, options: dict[str, Any], rows: int) -> None:
    columns = [Column("actions", (64,), "float64")]
    table = make_table(columns=columns, **options)
    assert len(table._core.memory.tensor) == rows * 512
    stats = table.stats()
    assert stats.bytes_reserved > rows * 512
    assert stats.bytes_address < rows * 512  # the arena has no columns


def test_as_many_transitions_fit_as_maxlen_says(make_table: MakeTable) -> None:
    for length in (1, 7, 250):
        table = make_table()
        for identity in range(1000 // length):
            table.add_sequence(identity, small_sequence(identity, length))
        assert table.size() == 1000 // length * length
        for identity in range(2000, 2000 + 1000 // length):  # and go on fitting
            table.add_sequence(identity, small_sequence(identity, length))
        assert table.size() == 1000 // length * length


@pytest.mark.parametrize("replace", [False, True])
def test_gaps_are_made_where_no_more_memory_is_to_be_had(
    make_table: MakeTable, replace: bool
) -> None:
    table = make_table(
        maxlen=100,
        max_sequences=6,
        ejector=UniformEjectionStrategy(),
        on_duplicate="replace" if replace else "error",
        seed=3,
    )
    random = Random(4)
    for number in range(600):
        identity = random.randrange(8) if replace else number
        length = random.randint(1, 70)
        table.add_sequence(identity, small_sequence(identity, length), timeout_s=5)
        assert torn_windows(table.sample(8, 1), 1) == []
    core = table._core
    assert core.arena.words[f.RESERVED_ROWS] <= core.layout.capacity_rows
    assert table.check() == []
    for identity in table.identities().tolist():
        assert table.sequence(identity)["obs"][:, 0].eq(identity).all()


def test_a_long_sequence_can_be_replaced(make_table: MakeTable) -> None:
    table = make_table(on_duplicate="replace", maxlen=100)
    for length in (100, 3, 100, 50, 100, 100):
        table.add_sequence(1, small_sequence(1, length))
        table.add_sequence(2, small_sequence(2, 100 - length) if length < 100 else
                           small_sequence(2, 1))  # fmt: skip
        assert table.check() == []


def test_a_file_does_not_come_beside_a_full_table(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table(max_sequences=100)
    for identity in range(80):
        table.add_sequence(identity, small_sequence(identity, 10))
    table.store(tmp_path / "t")
    before = {identity: table.sequence(identity) for identity in range(80)}
    with pytest.raises(CapacityError, match="the memory on cpu taken at creation does not hold"):
        table.restore(tmp_path / "t")
    assert table.check() == []
    for again in (False, True):
        if again:
            table.clear()
            table.restore(tmp_path / "t")
        for identity, rows in before.items():
            found = table.sequence(identity)
            assert all(torch.equal(found[name], rows[name]) for name in rows)


def test_it_does_not_grow(make_table: MakeTable) -> None:
    table = make_table()
    table.resize(1000)
    with pytest.raises(CapacityError, match="new_size is 1001, but memory on cpu was taken for"):
        table.resize(1001)


def test_a_sample_is_where_the_columns_are(make_table: MakeTable) -> None:
    table = make_table()
    assert table.device == backend(table).device
    elsewhere = make_table(device="meta", sampler=PrioritizedSampleStrategy())
    elsewhere.add_sequence(1, small_sequence(1, 5))
    found = elsewhere.sample(4, 2)
    tensors = [*found.values(), found.weights]
    assert {tensor.device for tensor in tensors} == {elsewhere.device} == {torch.device("meta")}
    assert elsewhere.sequence(1)["obs"].device == backend(elsewhere).device


def test_what_cannot_hold_columns_is_refused(make_table: MakeTable) -> None:
    assert storage_backend("cpu", None) is None
    assert storage_backend(torch.device("cpu"), "folder") is None
    with pytest.raises(SpecError, match="storage_device is 'meta'; give 'cpu', 'cuda' or"):
        storage_backend("meta", None)
    with pytest.raises(SpecError, match="storage_device is 'nonsense', which torch refuses"):
        storage_backend("nonsense", None)
    with pytest.raises(SpecError, match="columns on a device are in no file; leave one of"):
        storage_backend("cuda", "folder")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    number = "cuda:3" if device == "cuda:3" else "cuda:0"
    with pytest.raises(SpecError, match=f"'{number}', but torch finds 0 CUDA devices here"):
        storage_backend(device, None)


def test_a_forked_child_of_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    with pytest.raises(DeviceMemoryError, match="forked from one that had started CUDA"):
        storage_backend("cuda", None)
