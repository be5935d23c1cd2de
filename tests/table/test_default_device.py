"""Tables of programs that have torch make its tensors on a device by default."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from shmtable import MemoryDataset, PrioritizedSampleStrategy
from tests.tables import small_sequence, torn_windows


@pytest.fixture(autouse=True)
def _elsewhere() -> Iterator[None]:
    with torch.device("meta"):  # where every use of its content is an error
        yield


def test_a_table_is_where_it_was_made(make_table: Callable[..., Any], tmp_path: Path) -> None:
    table = make_table(pad="zero", sampler=PrioritizedSampleStrategy())
    for identity in range(8):
        table.add_sequence(identity, small_sequence(identity, 4 + identity))
    for steps in (1, 4, 9):
        sample = table.sample(16, steps)
        tensors = [*sample.values(), sample.weights]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert torn_windows(table.sample(16, 4), 4) == []
    table.update_priorities(sample.points, sample.weights)
    table.store(tmp_path / "t")
    table.restore(tmp_path / "t")
    assert table.sequence(3)["obs"].device.type == "cpu"


def test_so_is_a_dataset(make_table: Callable[..., Any]) -> None:
    table = make_table()
    table.add_sequence(1, small_sequence(1, 9))
    for sample in MemoryDataset(table, 4, 2, batches=2, seed=3):
        assert torn_windows(sample, 2) == []


def test_the_first_table_of_a_program_too() -> None:
    code = """
import torch
torch.set_default_device("meta")
from tests.multiprocess import content
with content.make() as table:
    table.add_sequence(1, content.sequence(1, 9))
    assert content.wrong_with(table.sample(8, 3), 3) == []
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, b"")
