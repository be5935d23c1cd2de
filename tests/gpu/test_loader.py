"""Loaders that deliver on a CUDA device: whole batches, whatever streams they are used on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from shmtable import MemoryLoader, PrioritizedSampleStrategy
from tests.tables import small_sequence, torn_windows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.fixture
def table(make_table) -> Any:
    """Twenty sequences of five to twenty-four steps."""
    table = make_table(sampler=PrioritizedSampleStrategy())
    for identity in range(20):
        table.add_sequence(identity, small_sequence(identity, 5 + identity))
    return table


def on_cpu(sample: Any) -> dict[str, Any]:
    return {name: column.cpu() for name, column in sample.items() if name != "n"}


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_batches_are_on_the_device_and_whole(table: Any, prefetch: int) -> None:
    for batch in MemoryLoader(table, 256, 5, "n", batches=50, prefetch=prefetch, device="cuda"):
        sample = batch["default"]
        assert sample["obs"].device.type == sample.weights.device.type == "cuda"
        assert torn_windows(on_cpu(sample), 5) == []
        assert table.update_priorities(sample.points, sample.weights) == 256


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_busy_stream_of_the_consumers_own_sees_whole_batches(table: Any, prefetch: int) -> None:
    stream = torch.cuda.Stream()
    sums, wanted = [], []
    with torch.cuda.stream(stream):
        for batch in MemoryLoader(
            table, 4096, 5, "n", batches=100, prefetch=prefetch, device="cuda"
        ):
            sample = batch["default"]
            torch.cuda._sleep(100_000)  # the memory of what is dropped here is still in use there
            sums.append(sample["obs"][:, 0].double().sum())
            wanted.append(5 * int(sample.points.identities.sum()))
            del sample, batch
    stream.synchronize()
    assert [int(one) for one in sums] == wanted


def test_a_table_that_delivers_on_the_device_itself_may_be_prefetched(make_table) -> None:
    table = make_table(device="cuda")
    table.add_sequence(1, small_sequence(1, 50))
    for batch in MemoryLoader(table, 64, 5, "n", batches=20, prefetch=2):
        assert torn_windows(on_cpu(batch["default"]), 5) == []


def test_device_memory_does_not_grow(table: Any) -> None:
    loader = MemoryLoader(table, 1024, 5, "n", batches=20, prefetch=2, device="cuda")
    for _ in loader:
        pass
    torch.cuda.synchronize()
    before, kept = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(10):
        for _ in loader:
            pass
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before
    # Of each stream's pieces torch keeps at least two MiB; each iteration has a thread of its own.
    assert torch.cuda.memory_reserved() <= kept + (4 << 20)
