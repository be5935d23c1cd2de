"""A shard without Ray around it: what is left when its process ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

from shmtable import ArrayMemoryTable
from shmtable.integrations.ray.shard import drop

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from shmtable import FifoEjectionStrategy, UniformSampleStrategy
from shmtable.integrations.ray.shard import Shard
from tests.tables import small_columns, small_sequence

options = {
    "columns": small_columns(),
    "maxlen": 100,
    "sampler": UniformSampleStrategy(),
    "ejector": FifoEjectionStrategy(),
    "classes": (),
}
shard = Shard(sys.argv[1], options)
shard._table.add_sequence(1, small_sequence(1, 10))
"""


def test_a_shard_that_is_ended_in_good_order_leaves_its_table_to_the_next(
    unique_name: Callable[[], str],
) -> None:
    name = unique_name()
    subprocess.run([sys.executable, "-c", PROGRAM, name], cwd=ROOT, check=True, timeout=100)
    try:
        with ArrayMemoryTable.attach(name) as table:
            assert table.size() == 10
            assert table.check() == []
    finally:
        drop(name)
