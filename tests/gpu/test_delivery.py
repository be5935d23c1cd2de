"""Samples delivered on a CUDA device, and sequences that come from one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import shmtable.columns.storage
from shmtable import DeviceMemoryError
from tests.gpu.waits import waits
from tests.tables import small_sequence, torn_windows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.fixture
def table(make_table: Callable[..., Any]) -> Any:
    """Twenty sequences of five to twenty-four steps, sampled onto the device."""
    table = make_table(device="cuda")
    for identity in range(20):
        table.add_sequence(identity, small_sequence(identity, 5 + identity))
    return table


def test_every_column_of_a_sample_is_on_the_device_and_whole(table: Any) -> None:
    sample = table.sample(64, 5)
    assert {column.device.type for column in sample.values()} == {"cuda"}
    assert torn_windows({name: column.cpu() for name, column in sample.items()}, 5) == []


def test_samples_on_the_device_do_not_change_with_the_table(table: Any) -> None:
    sample = table.sample(64, 5)
    table.clear()
    for identity in range(100, 150):
        table.add_sequence(identity, small_sequence(identity, 20))
    torch.cuda.synchronize()
    assert torn_windows({name: column.cpu() for name, column in sample.items()}, 5) == []
    assert int(sample["obs"][:, 0].max()) < 100


def test_sequences_of_device_tensors_arrive(table: Any) -> None:
    given = small_sequence(99, 7)
    table.add_sequence(99, {name: torch.as_tensor(rows).to("cuda") for name, rows in given.items()})
    kept = table.sequence(99)
    for name, rows in given.items():
        np.testing.assert_array_equal(kept[name].cpu().numpy(), rows)


@pytest.mark.parametrize("alone_bytes", [0, 2**22])
def test_a_busy_stream_of_the_callers_own_sees_whole_samples(
    table: Any, monkeypatch: pytest.MonkeyPatch, alone_bytes: int
) -> None:
    monkeypatch.setattr(shmtable.columns.storage, "_ALONE_BYTES", alone_bytes)
    stream: Any = torch.cuda.Stream()
    sums, wanted = [], []
    with torch.cuda.stream(stream):
        for number in range(200):
            sample = table.sample(1000 + number, 5)
            torch.cuda._sleep(100_000)  # the memory of what is dropped here is still in use there
            sums.append(sample["obs"][:, 0].double().sum())
            wanted.append(5 * int(sample.points.identities.sum()))
            del sample
    stream.synchronize()
    assert [int(one) for one in sums] == wanted


def test_a_sample_does_not_wait_for_the_callers_work(table: Any) -> None:
    for _ in range(3):
        table.sample(64, 5)
    torch.cuda._sleep(500_000_000)
    busy: Any = torch.cuda.Event()
    busy.record()
    sample = table.sample(64, 5)
    assert not busy.query()
    assert torn_windows({name: column.cpu() for name, column in sample.items()}, 5) == []


def test_the_cpu_waits_for_no_copy(table: Any) -> None:
    for _ in range(3):
        table.sample(64, 5)
    assert waits(lambda: table.sample(64, 5)) == 0
    assert waits(lambda: table.sample(64, 5)["obs"].cpu()) >= 1  # it can tell


def test_a_graph_is_captured_without_a_sample(table: Any) -> None:
    total = torch.zeros(4, device="cuda")
    total += 1
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with pytest.raises(DeviceMemoryError, match="a CUDA graph is being captured"):
            table.sample(64, 5)
        total += 1
    graph.replay()
    assert total.tolist() == [2, 2, 2, 2]
    assert (
        torn_windows({name: column.cpu() for name, column in table.sample(64, 5).items()}, 5) == []
    )
