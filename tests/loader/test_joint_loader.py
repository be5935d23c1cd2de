"""Several loaders as one."""

from __future__ import annotations

from typing import Any

import pytest

from shmtable import (
    Column,
    JointMemoryLoader,
    JointMemoryLoaderWithDataGroup,
    MemoryLoader,
    SpecError,
    WaitTimeoutError,
)
from tests.loader.conftest import prefetchers
from tests.loader.filled import fill, take

PREFETCH = (0, 1, 3)


def _pair(make_table: Any, **options: Any) -> list[MemoryLoader]:
    sizes = {"a": (2, 3), "b": (4, 1)}
    return [
        MemoryLoader(fill(make_table()), *size, "batch_size", data_group=name, **options)
        for name, size in sizes.items()
    ]


@pytest.mark.parametrize("prefetch", PREFETCH)
def test_a_joint_batch_has_all_groups_and_the_sum_of_their_sizes(make_table, prefetch) -> None:
    for batch in take(JointMemoryLoader(_pair(make_table, prefetch=prefetch)), 3):
        assert batch.keys() == {"a", "b", "batch_size"}
        assert batch["batch_size"] == 6 + 4
        assert batch["a"]["actions"].shape == (6,)
        assert batch["b"]["batch_size"] == 4


def test_a_joint_batch_may_have_a_group_of_its_own(make_table) -> None:
    loaders = _pair(make_table)
    (batch,) = take(JointMemoryLoaderWithDataGroup(loaders, data_group="both"), 1)
    assert batch.keys() == {"both", "batch_size"}
    assert batch["both"].keys() == {"a", "b", "batch_size"}
    assert batch["batch_size"] == batch["both"]["batch_size"] == 10


def test_joint_batches_end_with_the_first_loader_that_ends(make_table) -> None:
    loaders = _pair(make_table, prefetch=2)
    loaders[1].batches = 4
    assert len(list(JointMemoryLoader(loaders))) == 4
    assert len(list(JointMemoryLoaderWithDataGroup(loaders, "both"))) == 4
    assert prefetchers() == []


def test_a_joint_loader_is_ready_when_all_are(make_table) -> None:
    full, empty = fill(make_table()), make_table(columns=[Column("actions", (), "int64")])
    loaders = [MemoryLoader(full, 2, 2, "n", "a"), MemoryLoader(empty, 2, 2, "n", "b")]
    joint = JointMemoryLoader(loaders)
    assert not joint.is_ready()
    with pytest.raises(WaitTimeoutError, match="holds 0 transitions, and a batch takes 4"):
        joint.wait_until_ready(0.01)
    with pytest.raises(WaitTimeoutError, match="holds 0 transitions, and a batch takes 4"):
        next(iter(joint))
    assert full.stats().windows_sampled == 0
    empty.add_sequence(1, {"actions": [1, 2, 3, 4]})
    assert joint.is_ready()
    joint.wait_until_ready()


def test_joint_loaders_need_groups_of_their_own(make_table) -> None:
    loader = MemoryLoader(make_table(), 1, 1, "n", "a")
    with pytest.raises(SpecError, match="loaders is empty"):
        JointMemoryLoader([])
    for loaders, size_key in (([loader, loader], "n"), ([loader], "a")):
        with pytest.raises(SpecError, match="each a name of its own"):
            JointMemoryLoader(loaders, size_key)
    with pytest.raises(SpecError, match="both 'n'"):
        JointMemoryLoaderWithDataGroup([loader], "n", "n")
