"""Looking up, removing and clearing; counts, statistics and the table's description of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shmtable import ArrayMemoryTable, Column, EmptyTableError, UnknownIdentityError
from shmtable.index import fields as f
from shmtable.shm.header import DIRTY
from tests.table.snapshots import content
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]
ROW_BYTES = 3 * 4 + 8 + 4


@pytest.fixture
def table(make_table: MakeTable) -> ArrayMemoryTable:
    """Sequences 1 to 5, as long as 10 times their number."""
    table = make_table()
    for identity in range(1, 6):
        table.add_sequence(identity, small_sequence(identity, 10 * identity))
    return table


def test_identities_come_in_order_of_insertion(table: ArrayMemoryTable) -> None:
    table.remove(2)
    table.add_sequence(-7, small_sequence(0, 1))
    table.add_sequence(2, small_sequence(0, 1))
    identities = table.identities()
    assert identities.tolist() == [1, 3, 4, 5, -7, 2]
    assert identities.dtype == np.int64
    identities[:] = 0
    assert table.identities().tolist() == [1, 3, 4, 5, -7, 2]


def test_an_empty_table_has_none(make_table: MakeTable) -> None:
    table = make_table()
    assert table.identities().tolist() == []
    assert table.identities().dtype == np.int64
    assert table.size() == len(table) == 0
    assert table  # so that ``table or another`` is the table
    assert not table.full()
    assert table.check() == []


def test_removing_frees_exactly_one(table: ArrayMemoryTable) -> None:
    before = content(table)
    table.remove(3)
    assert content(table) == {i: s for i, s in before.items() if i != 3}
    assert table.size() == 120
    for call in (table.remove, table.sequence):
        with pytest.raises(UnknownIdentityError, match="identity 3 is not in the table"):
            call(3)


def test_the_last_one_may_be_removed(table: ArrayMemoryTable) -> None:
    for identity in (5, 1, 3, 2, 4):
        table.remove(identity)
        assert table.check() == []
    assert table.size() == 0
    with pytest.raises(EmptyTableError):
        table.sample(1, 1)
    table.add_sequence(1, small_sequence(1, 1000))
    assert table.size() == 1000


def test_clearing_removes_all_and_the_table_works_on(table: ArrayMemoryTable) -> None:
    for round_number in range(3):
        table.clear()
        assert table.identities().tolist() == []
        assert table.size() == 0
        assert table.check() == []
        for identity in (2, 1):
            table.add_sequence(identity, small_sequence(round_number, 400))
        assert table.identities().tolist() == [2, 1]
        assert set(table.sample(50, 1)["obs"][:, 0].tolist()) == {round_number}


def test_clearing_an_empty_table_does_nothing(make_table: MakeTable) -> None:
    table = make_table()
    table.clear()
    assert table.check() == []
    assert table.stats().sequences_removed == 0


# -- full --------------------------------------------------------------------------------------


def test_full_from_the_first_ejection_until_cleared(make_table: MakeTable) -> None:
    table = make_table(maxlen=20)
    for identity, length, full in ((1, 12, False), (2, 7, False), (3, 2, True), (4, 1, True)):
        table.add_sequence(identity, small_sequence(identity, length))
        assert table.full() == full
    # It has room again, but has been seen to eject.
    table.remove(2)
    assert table.full()
    table.clear()
    assert not table.full()


def test_full_when_no_transition_fits_any_more(make_table: MakeTable) -> None:
    table = make_table(maxlen=20)
    table.add_sequence(1, small_sequence(1, 20))
    assert table.full()
    table.remove(1)
    assert not table.full()


def test_full_when_there_are_as_many_sequences_as_may_be(make_table: MakeTable) -> None:
    table = make_table(maxlen=20, max_sequences=2)
    for identity, full in ((1, False), (2, True), (3, True)):
        table.add_sequence(identity, small_sequence(identity, 1))
        assert table.full() == full


def test_not_full_after_resizing(make_table: MakeTable) -> None:
    table = make_table(maxlen=20)
    for identity in range(3):
        table.add_sequence(identity, small_sequence(identity, 10))
    assert table.full()
    table.resize(30)
    assert not table.full()


# -- statistics --------------------------------------------------------------------------------


def test_counts_are_those_of_what_happened(table: ArrayMemoryTable) -> None:
    table.remove(5)
    table.sample(7, 2)
    table.sample(3, 1)
    table.add_sequence(9, small_sequence(9, 1000))
    stats = table.stats()
    assert stats.transitions == stats.maxlen == 1000
    assert stats.fill == 1.0
    assert (stats.sequences, stats.max_sequences) == (1, 1000)
    assert (stats.sequences_added, stats.transitions_added) == (6, 1150)
    assert stats.sequences_removed == 5
    assert stats.windows_sampled == 10
    assert stats.writing_transitions == 0
    assert stats.recoveries == 0
    assert stats.attachments == 1


def test_bytes_are_those_of_what_is_stored(table: ArrayMemoryTable) -> None:
    stats = table.stats()
    assert stats.bytes_payload == 150 * ROW_BYTES
    assert stats.bytes_payload < stats.bytes_reserved < stats.bytes_address
    assert stats.bytes_address > 16 * 1000 * ROW_BYTES


def test_a_replacement_counts_as_added_and_removed(make_table: MakeTable) -> None:
    table = make_table(on_duplicate="replace")
    for _ in range(3):
        table.add_sequence(1, small_sequence(1, 5))
    stats = table.stats()
    assert (stats.sequences, stats.sequences_added, stats.sequences_removed) == (1, 3, 2)


def test_a_cleared_table_has_removed_all_it_had(table: ArrayMemoryTable) -> None:
    table.clear()
    stats = table.stats()
    assert (stats.sequences, stats.sequences_removed, stats.sequences_added) == (0, 5, 5)


def test_times_sampled_are_counted_for_each_sequence(table: ArrayMemoryTable) -> None:
    points = [table.sample(50, 2).points for _ in range(4)]
    drawn = np.concatenate([p.identities for p in points if p is not None])
    core = table._core
    counted = {
        int(core.arrays.slots[slot, f.IDENTITY]): int(core.arrays.times_sampled[slot])
        for slot in core.view.live_slots()
    }
    assert counted == {identity: int((drawn == identity).sum()) for identity in range(1, 6)}


@pytest.mark.parametrize("call", ["size", "identities", "stats", "check", "sample", "add"])
def test_what_a_dead_process_left_is_repaired_by_whoever_comes_next(
    table: ArrayMemoryTable, call: str
) -> None:
    before = content(table)
    core = table._core
    core.arrays.links[: core.arena.words[f.SLOT_HIGH]] = 3
    core.arena.words[f.LIVE_STEPS] = 7
    core.arena.words[DIRTY] = 1
    calls = {
        "sample": lambda: table.sample(5, 5),
        "add": lambda: table.add_sequence(9, small_sequence(9, 5)),
        "size": lambda: table.size() == 150,
    }
    assert calls.get(call, getattr(table, call, None))() is not False
    assert table.stats().recoveries == 1
    assert table.check() == []
    assert {identity: content(table)[identity] for identity in before} == before


# -- describing itself -------------------------------------------------------------------------


def test_repr_says_fill_columns_and_bytes(table: ArrayMemoryTable) -> None:
    megabytes = f"{table.stats().bytes_reserved / 2**20:.1f} MiB"
    assert repr(table) == (
        "<ArrayMemoryTable (unnamed): 150 of 1000 transitions in 5 sequences; obs float32[3], "
        "next_obs float32[3], actions int64[], rewards float32[], dones bool[]; "
        f"{megabytes}>"
    )


def test_repr_of_a_named_table_says_its_name(
    make_table: MakeTable, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    assert repr(make_table(name=name)).startswith(f"<ArrayMemoryTable {name}: 0 of 1000 tran")


def test_columns_are_those_declared(table: ArrayMemoryTable) -> None:
    names = [column.name for column in table.columns]
    assert names == ["obs", "next_obs", "actions", "rewards", "dones"]
    assert table.maxlen == 1000


def test_each_of_many_columns_keeps_its_own_extra_row(
    make_table: MakeTable, tmp_path: Path
) -> None:
    names = [f"c{number}" for number in range(126)]
    table = make_table(columns=[Column(name, (), "int16") for name in names], length_key="c0")
    for identity, longer in enumerate(([], [1, 62, 63, 64, 125], range(1, 126))):
        rows = {n: np.full(4 + (place in longer), place) for place, n in enumerate(names)}
        table.add_sequence(identity, rows)
    table.store(str(tmp_path / "many"))
    for restored in (False, True):
        for identity, longer in enumerate(([], [1, 62, 63, 64, 125], range(1, 126))):
            found = table.sequence(identity)
            assert [len(found[n]) for n in names] == [4 + (p in longer) for p in range(126)]
            assert all((found[n] == place).all() for place, n in enumerate(names))
        if not restored:
            table.restore(str(tmp_path / "many"))
