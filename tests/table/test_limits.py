"""maxlen and max_sequences, raising them, and memory taken as it is needed or at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    CapacityError,
    Column,
    SequenceError,
    UniformEjectionStrategy,
)
from shmtable.index import fields as f
from tests.table.snapshots import content, everything
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]


def fill(table: ArrayMemoryTable, lengths: list[int], first: int = 0) -> None:
    for identity, length in enumerate(lengths, first):
        table.add_sequence(identity, small_sequence(identity, length))


def test_size_never_exceeds_maxlen(make_table: MakeTable) -> None:
    table = make_table(maxlen=37, ejector=UniformEjectionStrategy(), seed=1)
    random = np.random.default_rng(1)
    for identity in range(300):
        table.add_sequence(identity, small_sequence(identity, int(random.integers(1, 38))))
        assert 0 < table.size() <= 37
        assert table.identities()[-1] == identity


def test_a_table_of_one_transition(make_table: MakeTable) -> None:
    table = make_table(maxlen=1)
    fill(table, [1, 1, 1])
    assert table.identities().tolist() == [2]
    assert table.sample(3, 1)["obs"][:, 0].tolist() == [2, 2, 2]


def test_no_more_sequences_than_allowed(make_table: MakeTable) -> None:
    table = make_table(maxlen=1000, max_sequences=3)
    fill(table, [1] * 10)
    assert table.identities().tolist() == [7, 8, 9]
    assert table.stats().max_sequences == 3


def test_as_many_sequences_as_transitions_by_default(make_table: MakeTable) -> None:
    table = make_table(maxlen=700)
    table.add_sequences((identity, small_sequence(identity, 1)) for identity in range(900))
    assert table.identities().tolist() == list(range(200, 900))
    assert torn_windows(table.sample(100, 1), 1) == []


def test_resizing_keeps_everything_and_ejects_later(make_table: MakeTable) -> None:
    table = make_table(maxlen=100)
    fill(table, [30, 30, 30])
    before = content(table)
    table.resize(200)
    assert content(table) == before
    assert table.maxlen == table.stats().maxlen == 200
    fill(table, [30, 30, 30], first=3)
    assert table.identities().tolist() == [0, 1, 2, 3, 4, 5]
    fill(table, [30], first=6)
    assert table.identities().tolist() == [1, 2, 3, 4, 5, 6]
    assert torn_windows(table.sample(100, 9), 9) == []


def test_resizing_admits_longer_sequences(make_table: MakeTable) -> None:
    table = make_table(maxlen=100)
    with pytest.raises(SequenceError, match=r"sequence has 101 transitions, .* at most 100"):
        table.add_sequence(1, small_sequence(1, 101))
    table.resize(101)
    table.add_sequence(1, small_sequence(1, 101))
    with pytest.raises(SequenceError, match=r"sequence has 102 transitions, .* at most 101"):
        table.add_sequence(2, small_sequence(2, 102))


def test_resizing_keeps_the_share_of_sequences(make_table: MakeTable) -> None:
    table = make_table(maxlen=100, max_sequences=10)
    table.resize(250)
    assert table.stats().max_sequences == 25
    table.resize(250)
    assert table.stats().max_sequences == 25


def test_a_table_may_grow_to_sixteen_times_its_size(make_table: MakeTable) -> None:
    table = make_table(maxlen=50)
    for size in (51, 400, 799, 800):
        table.resize(size)
        assert table.maxlen == size
    before = everything(table)
    with pytest.raises(CapacityError, match=r"new_size is 801, .* 800 transitions \(16 times"):
        table.resize(801)
    assert everything(table) == before
    table.add_sequences((identity, small_sequence(identity, 1)) for identity in range(1000))
    assert table.identities().tolist() == list(range(200, 1000))
    assert torn_windows(table.sample(100, 1), 1) == []


def test_resizing_to_the_present_size_is_no_error(make_table: MakeTable) -> None:
    table = make_table(maxlen=100)
    table.resize(100)
    assert table.maxlen == 100


def wide(make_table: MakeTable, **options: object) -> ArrayMemoryTable:
    """A kilobyte a row, ten megabytes when full."""
    return make_table(
        columns=[Column("actions", (128,), "int64")], maxlen=10_000, max_sequences=100, **options
    )


def test_memory_is_taken_as_the_table_fills(make_table: MakeTable) -> None:
    table = wide(make_table)
    taken = []
    for identity in range(100):
        taken.append(table.stats().bytes_reserved)
        table.add_sequence(identity, {"actions": np.ones((100, 128), np.int64)})
        stats = table.stats()
        assert stats.bytes_payload < stats.bytes_reserved
        # An eighth more than needed at most, and the steps' least size.
        assert stats.bytes_reserved < 1.2 * stats.bytes_payload + 2**20
    assert taken[0] < 2**20
    assert taken == sorted(taken)
    full = table.stats().bytes_reserved
    for identity in range(100, 300):
        table.add_sequence(identity, {"actions": np.ones((100, 128), np.int64)})
    assert table.stats().bytes_reserved < 1.1 * full


def test_preallocating_takes_it_at_once(make_table: MakeTable) -> None:
    table = wide(make_table, preallocate=True)
    taken = table.stats().bytes_reserved
    assert taken >= 10_000 * 1024
    rows = table._core.arena.words[f.RESERVED_ROWS]
    for identity in range(300):
        table.add_sequence(identity, {"actions": np.ones((100, 128), np.int64)})
    assert table._core.arena.words[f.RESERVED_ROWS] == rows
    assert table.stats().bytes_reserved == taken


def test_clearing_gives_the_rows_out_again_from_the_first(make_table: MakeTable) -> None:
    table = make_table(maxlen=1000)
    fill(table, [100] * 10)
    table.clear()
    fill(table, [100] * 3, first=50)
    core = table._core
    assert core.arena.words[f.ROW_HIGH] == 3 * 101
