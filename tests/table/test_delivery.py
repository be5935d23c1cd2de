"""Samples of a table in shared memory that are delivered on a device, which is pretended."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import shmtable.columns.storage
from shmtable import PrioritizedSampleStrategy
from shmtable.columns import Column, CpuStorage
from tests.multiprocess.recipe import Crew
from tests.pretended import Pretended, pretend  # noqa: F401
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., Any]


def filled(make_table: MakeTable, **options: Any) -> Any:
    table = make_table(device="cuda", **options)
    for identity in range(20):
        table.add_sequence(identity, small_sequence(identity, 10))
    return table


@pytest.fixture(params=[0, 2**22], ids=["gathered there", "copied there"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shmtable.columns.storage, "_ALONE_BYTES", request.param)


@pytest.mark.usefixtures("_either_way")
def test_samples_are_whole_and_stay_so(make_table: MakeTable, pretended: list[Pretended]) -> None:
    table = filled(make_table, sampler=PrioritizedSampleStrategy(), pad="zero")
    kept = []
    for number in range(12):
        kept.append(table.sample(4 + number % 3, 4))
    table.clear()
    (streams,) = pretended
    for data in kept:
        assert torn_windows(data, 4) == []
        assert data["obs"][::4, 0].tolist() == data.points.identities.tolist()
        assert all(streams.has(tensor) for tensor in [*data.values(), data.weights])


def test_the_callers_stream_waits_and_is_lent_what_it_gets(
    make_table: MakeTable, pretended: list[Pretended]
) -> None:
    table = filled(make_table)
    sample = table.sample(16, 4)
    (streams,) = pretended
    sends = streams.log.count("send")
    assert streams.log == ["send"] * sends + [f"mark {sends}", f"follow {sends}"]
    assert {id(tensor) for tensor in streams.lent} == {id(tensor) for tensor in sample.values()}


def test_pinned_memory_is_filled_again_only_after_its_last_copy(
    make_table: MakeTable, pretended: list[Pretended]
) -> None:
    table = filled(make_table)
    for _ in range(4):
        table.sample(16, 4)
    (streams,) = pretended
    (marks, finishes) = (
        [entry.split()[1] for entry in streams.log if entry.startswith(what)]
        for what in ("mark", "finish")
    )
    assert finishes == marks[:2]
    assert len(streams.allocated) == 2


def test_columns_that_lie_side_by_side_go_together(
    make_table: MakeTable, pretended: list[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shmtable.columns.storage, "_ALONE_BYTES", 0)
    columns = [Column(name, (), "float32") for name in ("actions", "a", "b", "c")]
    table = make_table(columns=columns, device="cuda")
    rows = {name: np.arange(9, dtype=np.float32) * n for n, name in enumerate(["a", "b", "c"], 2)}
    table.add_sequence(1, {"actions": np.arange(9, dtype=np.float32), **rows})
    for _ in range(4):  # both slots have room by then
        table.sample(8, 4)
    (streams,) = pretended
    before = streams.log.count("send")
    sample = table.sample(8, 4)
    assert streams.log.count("send") == before + 1
    for factor, name in enumerate(["a", "b", "c"], 2):
        assert torch.equal(sample[name], sample["actions"] * factor)


def test_a_sample_that_fails_takes_nothing_with_it(
    make_table: MakeTable, pretended: list[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shmtable.columns.storage, "_ALONE_BYTES", 0)
    table = filled(make_table)
    kept = [table.sample(8, 4) for _ in range(3)]
    original = CpuStorage.gather_copied
    with monkeypatch.context() as patched:

        def gather(*arguments: Any) -> None:
            original(*arguments)
            raise MemoryError

        patched.setattr(CpuStorage, "gather_copied", gather)
        for _ in range(3):
            with pytest.raises(MemoryError):
                table.sample(8, 4)
    kept += [table.sample(8, 4) for _ in range(3)]
    assert all(torn_windows(data, 4) == [] for data in kept)
    assert table.sequence(3)["obs"][0].tolist() == [3, 0, 10]


def test_threads_do_not_share_pinned_memory(
    make_table: MakeTable, pretended: list[Pretended]
) -> None:
    table = filled(make_table)
    kept: list[Any] = []

    def draw() -> None:
        for _ in range(20):
            kept.append(table.sample(8, 4))

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pretended) == 3 and len(kept) == 60
    assert all(torn_windows(data, 4) == [] for data in kept)


def test_a_forked_child_leaves_its_parents_alone(
    make_table: MakeTable, pretended: list[Pretended]
) -> None:
    table = filled(make_table)
    kept = [table.sample(8, 4) for _ in range(3)]
    with Crew("fork") as crew:
        crew.add(_sample_there, table, pretended)
        crew.go()
        assert crew.results() == [2]
    kept += [table.sample(8, 4) for _ in range(3)]
    assert len(pretended) == 1 and all(torn_windows(data, 4) == [] for data in kept)


def _sample_there(table: Any, made: list[Pretended]) -> int:
    before = list(made[0].log)
    assert torn_windows(table.sample(8, 4), 4) == []
    table.close()
    gc.collect()
    assert made[0].log == before
    return len(made)


def test_a_forked_child_drops_nothing_of_other_threads(
    make_table: MakeTable, pretended: list[Pretended]
) -> None:
    table = filled(make_table)
    drawn, done = threading.Event(), threading.Event()

    def draw() -> None:
        table.sample(8, 4)
        drawn.set()
        done.wait()

    thread = threading.Thread(target=draw)
    thread.start()
    drawn.wait()
    made = table._deliveries._made.valuerefs()
    try:
        with Crew("fork") as crew:
            crew.add(_are_there, made)
            crew.go()
            assert crew.results() == [[True]]
    finally:
        done.set()
        thread.join()
    gc.collect()
    assert _are_there(made) == [False]  # nor does the parent keep more than it did


def _are_there(made: list[Any]) -> list[bool]:
    return [delivery() is not None for delivery in made]


def test_adaptors_get_what_is_on_the_device(
    make_table: MakeTable, pretended: list[Pretended]
) -> None:
    seen = []

    def adaptor(result: Any, count: int, length: int) -> Any:
        seen.append(all(pretended[0].has(tensor) for tensor in result.values()))
        return result

    filled(make_table, adaptors=[adaptor]).sample(8, 4)
    assert seen == [True]
