"""Closing, passing on and attaching, all within one process."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shmtable import (
    ArenaInUseError,
    ArenaNotFoundError,
    ArrayMemoryTable,
    ClosedError,
    KeyScaleAdaptor,
)
from tests.table.snapshots import content, everything
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]
LOCKS = ["robust", "portable"]

USES: dict[str, Callable[[ArrayMemoryTable], object]] = {
    "add_sequence": lambda table: table.add_sequence(1, small_sequence(1, 5)),
    "add_sequences": lambda table: table.add_sequences([(1, small_sequence(1, 5))]),
    "sample": lambda table: table.sample(1, 1),
    "size": lambda table: table.size(),
    "len": len,
    "full": lambda table: table.full(),
    "maxlen": lambda table: table.maxlen,
    "columns": lambda table: table.columns,
    "identities": lambda table: table.identities(),
    "sequence": lambda table: table.sequence(1),
    "remove": lambda table: table.remove(1),
    "clear": lambda table: table.clear(),
    "resize": lambda table: table.resize(5000),
    "check": lambda table: table.check(),
    "stats": lambda table: table.stats(),
    "pickle": pickle.dumps,
    "copy": copy.copy,
}


def small(table: ArrayMemoryTable) -> ArrayMemoryTable:
    for identity in (1, 2, 3):
        table.add_sequence(identity, small_sequence(identity, 5 + identity))
    return table


@pytest.mark.parametrize("use", USES)
def test_use_after_close(make_table: MakeTable, use: str) -> None:
    table = small(make_table())
    table.close()
    with pytest.raises(ClosedError) as caught:
        USES[use](table)
    assert str(caught.value) == "the table is closed; make or attach it again to use it"


def test_closing_twice_is_harmless_and_repr_still_works(make_table: MakeTable) -> None:
    table = make_table()
    table.close()
    table.close()
    assert repr(table) == "<ArrayMemoryTable, closed>"


def test_samples_outlive_their_table(make_table: MakeTable) -> None:
    table = small(make_table())
    sample, sequence = table.sample(10, 3), table.sequence(2)
    table.close()
    del table
    gc.collect()
    assert torn_windows(sample, 3) == []
    assert sequence["actions"].tolist() == list(range(2000, 2007))


def test_a_table_closes_at_the_end_of_its_with_block(
    make_table: MakeTable, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    with make_table(name=name) as table:
        assert isinstance(table, ArrayMemoryTable)
        ArrayMemoryTable.attach(name).close()
        assert table.size() == 0
    with pytest.raises(ClosedError):
        table.size()
    with pytest.raises(ArenaNotFoundError):
        ArrayMemoryTable.attach(name)


def test_a_with_block_that_fails_closes_too(make_table: MakeTable) -> None:
    with pytest.raises(ZeroDivisionError), make_table() as table:
        raise ZeroDivisionError
    with pytest.raises(ClosedError):
        table.size()


def test_the_memory_goes_with_the_last_reference(make_table: MakeTable) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        table = small(make_table())
        other = pickle.loads(pickle.dumps(table))
        table.close()
        other.close()
    assert len(os.listdir("/proc/self/fd")) <= before


# -- pickling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS)
def test_a_pickled_table_is_the_same_table(make_table: MakeTable, lock: str) -> None:
    table = small(make_table(lock=lock, layout="batch_time", pad="edge", on_duplicate="replace"))
    with pickle.loads(pickle.dumps(table)) as other:
        assert content(other) == content(table)
        assert other.columns == table.columns
        other.add_sequence(1, small_sequence(9, 4))
        other.resize(3000)
        assert table.identities().tolist() == [2, 3, 1]
        assert table.maxlen == 3000
        table.remove(2)
        assert other.identities().tolist() == [3, 1]
        sample = other.sample(2, 9)
        assert sample["mask"].shape == (2, 9)
        assert other.check() == []
    assert table.identities().tolist() == [3, 1]


def test_pickles_are_small_whatever_the_table_holds(make_table: MakeTable) -> None:
    table = make_table(maxlen=100_000)
    before = len(pickle.dumps(table))
    table.add_sequences((identity, small_sequence(identity, 900)) for identity in range(60))
    assert len(pickle.dumps(table)) == before < 4000


def test_adaptors_and_device_travel(make_table: MakeTable) -> None:
    table = small(make_table(adaptors=[KeyScaleAdaptor(0.0, "rewards")], device="cpu"))
    with pickle.loads(pickle.dumps(table)) as other:
        assert other.device == table.device
        assert other.sample(4, 2)["rewards"].tolist() == [0.0] * 8


def test_a_copy_draws_a_stream_of_its_own(make_table: MakeTable) -> None:
    table = small(make_table(seed=3))
    with pickle.loads(pickle.dumps(table)) as other:
        draws = [t.sample(50, 1).points for t in (table, other)]
        assert draws[0] is not None and draws[1] is not None
        assert draws[0].offsets.tolist() != draws[1].offsets.tolist()
        assert table.stats().attachments == 2


def test_a_copy_of_a_copy(make_table: MakeTable) -> None:
    table = small(make_table())
    with pickle.loads(pickle.dumps(table)) as second:
        table.close()
        with pickle.loads(pickle.dumps(second)) as third:
            assert third.size() == 21
            assert torn_windows(third.sample(20, 2), 2) == []
    with pytest.raises(ClosedError):
        second.size()


# -- attaching by name -------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS)
def test_attaching_by_name(
    make_table: MakeTable, unique_name: Callable[[], str], lock: str
) -> None:
    name = unique_name()
    table = small(make_table(name=name, lock=lock))
    with ArrayMemoryTable.attach(name, adaptors=KeyScaleAdaptor(0.0, "rewards")) as other:
        assert content(other) == content(table)
        assert other.columns == table.columns
        other.add_sequence(7, small_sequence(7, 3))
        assert table.identities().tolist() == [1, 2, 3, 7]
        assert other.sample(4, 1)["rewards"].tolist() == [0.0] * 4
        assert table.sample(4, 1)["rewards"].sum() > 0
    assert table.size() == 24
    with ArrayMemoryTable.attach(name) as other:
        assert other.size() == 24


def test_what_is_attached_outlives_the_name(
    make_table: MakeTable, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    table = small(make_table(name=name))
    other = ArrayMemoryTable.attach(name)
    table.close()
    assert other.size() == 21
    assert torn_windows(other.sample(9, 2), 2) == []
    other.close()
    with pytest.raises(ArenaNotFoundError):
        ArrayMemoryTable.attach(name)
    make_table(name=name)


def test_a_name_given_up_may_be_taken_again(
    make_table: MakeTable, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    with small(make_table(name=name)):
        with pytest.raises(ArenaInUseError):
            make_table(name=name)
    assert make_table(name=name).size() == 0


# -- tables on disk ----------------------------------------------------------------------------


def on_disk(make_table: MakeTable, folder: Path, **options: Any) -> ArrayMemoryTable:
    return make_table(name="replay", directory=str(folder), **options)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_table_in_a_folder_stays(make_table: MakeTable, tmp_path: Path, lock: str) -> None:
    table = small(on_disk(make_table, tmp_path, lock=lock, maxlen=30, seed=1))
    table.add_sequence(4, small_sequence(4, 9))
    before = content(table)
    assert list(before) == [1, 2, 3, 4]
    table.close()
    for _ in range(2):
        with ArrayMemoryTable.attach("replay", directory=str(tmp_path)) as again:
            assert content(again) == before
            assert again.check() == []
            assert again.full()
            assert torn_windows(again.sample(20, 3), 3) == []
    with ArrayMemoryTable.attach("replay", directory=str(tmp_path)) as again:
        again.add_sequence(5, small_sequence(5, 9))
        assert again.identities().tolist() == [3, 4, 5]
        assert again.stats().sequences_added == 5
    with ArrayMemoryTable.attach("replay", directory=str(tmp_path)) as again:
        assert again.identities().tolist() == [3, 4, 5]


def test_a_table_in_a_folder_is_not_made_anew_over_itself(
    make_table: MakeTable, tmp_path: Path
) -> None:
    small(on_disk(make_table, tmp_path)).close()
    with pytest.raises(ArenaInUseError):
        on_disk(make_table, tmp_path)
    with ArrayMemoryTable.attach("replay", directory=str(tmp_path)) as again:
        assert again.size() == 21


def test_a_table_in_a_folder_attached_while_open(make_table: MakeTable, tmp_path: Path) -> None:
    table = small(on_disk(make_table, tmp_path))
    with ArrayMemoryTable.attach("replay", directory=str(tmp_path)) as other:
        other.remove(1)
        assert everything(table)["content"] == everything(other)["content"]
    with pickle.loads(pickle.dumps(table)) as other:
        assert other.identities().tolist() == [2, 3]
    assert table.stats().recoveries == 0


def test_a_file_that_lost_what_can_be_derived_is_repaired(
    make_table: MakeTable, tmp_path: Path
) -> None:
    table = small(on_disk(make_table, tmp_path))
    before = content(table)
    arrays = table._core.arrays
    for array in (arrays.row_slot[:20], arrays.links[:4], arrays.live[:3], arrays.free[:4]):
        array[:] = 0
    table.close()
    with ArrayMemoryTable.attach("replay", directory=str(tmp_path)) as again:
        assert again.check() == []
        assert content(again) == before
        drawn = again.sample(200, 5)
        assert torn_windows(drawn, 5) == []
        assert set(drawn["obs"][:, 0].tolist()) == {1, 2, 3}


def test_a_folder_may_be_a_path(make_table: MakeTable, tmp_path: Path) -> None:
    table = small(make_table(name="replay", directory=tmp_path))
    assert (tmp_path / "replay.shmtable").stat().st_mode & 0o777 == 0o600
    table.close()
    with ArrayMemoryTable.attach("replay", directory=tmp_path) as again:  # type: ignore[arg-type]
        assert again.size() == 21
