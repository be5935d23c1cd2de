"""A table is restored while somebody is adding to it: what the writer finds at its commit."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from shmtable import ArrayMemoryTable, DuplicateIdentityError, WaitTimeoutError
from shmtable.columns import Prepared
from shmtable.index import Request, Reservation
from shmtable.index import fields as f
from shmtable.protocols import write
from shmtable.protocols.core import Core
from shmtable.protocols.load import MOST_AT_ONCE, load
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]


def load_prepared(
    core: Core, sequences: Iterable[tuple[int, Prepared]], *, at_once: int = MOST_AT_ONCE
) -> None:
    """Restore sequences that come from nowhere: so many in each batch."""
    waiting: list[Prepared] = []

    def batches() -> Iterator[list[Request]]:
        rest = iter(sequences)
        while batch := list(itertools.islice(rest, at_once)):
            waiting.extend(sequence for _, sequence in batch)
            yield [Request(i, s.length, s.span, s.extra, False) for i, s in batch]

    def fill(reservations: list[Reservation]) -> None:
        for reservation in reservations:
            write.copy(core, reservation, waiting.pop(0))

    load(core, batches(), fill)


def restore_while_copying(
    core: Core, monkeypatch: pytest.MonkeyPatch, identities: range, length: int
) -> None:
    """The next add finds, when it has copied its rows, that these sequences are the table."""
    copy = write.copy

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(write, "copy", copy)
        load_prepared(
            core, ((i, core.converter.prepare(small_sequence(i, length))) for i in identities)
        )
        copy(*arguments)

    monkeypatch.setattr(write, "copy", late)


@pytest.mark.parametrize("on_duplicate", ["error", "replace"])
def test_what_is_added_meanwhile_joins_the_restored_content(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, on_duplicate: str
) -> None:
    table = make_table(maxlen=100, on_duplicate=on_duplicate)
    table.add_sequence(1, small_sequence(1, 30))
    restore_while_copying(table._core, monkeypatch, range(100, 104), 20)
    table.add_sequence(50, small_sequence(50, 15))
    assert table.identities().tolist() == [100, 101, 102, 103, 50]
    assert torn_windows(table.sample(64, 3), 3) == []
    assert table.stats().transitions_added == 30 + 80 + 15


def test_the_limit_holds_though_the_restored_content_has_taken_the_room(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(maxlen=100)
    restore_while_copying(table._core, monkeypatch, range(100, 104), 25)
    table.add_sequence(50, small_sequence(50, 15))
    assert table.identities().tolist() == [101, 102, 103, 50]
    assert table.size() == 90


def test_an_identity_that_was_restored_meanwhile_is_a_duplicate(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(maxlen=100)
    restore_while_copying(table._core, monkeypatch, range(100, 104), 10)
    with pytest.raises(DuplicateIdentityError, match="identity 102 is already in the table"):
        table.add_sequence(102, small_sequence(102, 5))
    assert table.identities().tolist() == [100, 101, 102, 103]
    assert len(table.sequence(102)["actions"]) == 10
    assert table.stats().writing_transitions == 0


def test_an_identity_that_was_restored_meanwhile_is_replaced(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(maxlen=100, on_duplicate="replace")
    restore_while_copying(table._core, monkeypatch, range(100, 104), 25)
    table.add_sequence(102, small_sequence(102, 5))
    assert table.identities().tolist() == [100, 101, 103, 102]
    assert len(table.sequence(102)["actions"]) == 5


def test_the_number_of_sequences_stays_within_its_limit(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(maxlen=100, max_sequences=4)
    restore_while_copying(table._core, monkeypatch, range(100, 104), 10)
    table.add_sequence(50, small_sequence(50, 15))
    assert table.identities().tolist() == [101, 102, 103, 50]


def test_more_sequences_than_the_identity_map_had_room_for(make_table: MakeTable) -> None:
    table = make_table(maxlen=3000)
    core = table._core
    sequences = ((i, core.converter.prepare(small_sequence(i, 1))) for i in range(3000))
    load_prepared(core, sequences)
    words = core.arena.words
    assert 2 * 3000 <= words[f.BUCKETS] <= words[f.RESERVED_BUCKETS]
    again = pickle.loads(pickle.dumps(table))  # whoever joins believes the marks, or refuses
    assert again.sequence(2999)["actions"].shape == (1,)
    again.close()


def test_a_table_that_is_restored_into_its_last_slots_makes_adders_wait(
    make_table: MakeTable,
) -> None:
    table = make_table(maxlen=100)
    table.resize(100 * table._core.arena.factor)
    core, slots = table._core, table._core.layout.capacity_slots
    half = slots // 2
    table.add_sequences((i, small_sequence(i, 1)) for i in range(half))

    def sequences() -> Iterator[tuple[int, Prepared]]:
        for i in range(slots, slots + slots - 1 - half):
            yield i, core.converter.prepare(small_sequence(i, 1))
        with pytest.raises(WaitTimeoutError, match="restored into all slots"):
            table.add_sequence(half, small_sequence(half, 1), timeout_s=0)

    load_prepared(core, sequences(), at_once=1)
    assert core.arena.words[f.RESERVED_SLOTS] == slots
    table.add_sequence(half, small_sequence(half, 1))
    assert table.check() == []


def test_what_lies_in_no_gap_together_is_loaded_in_parts(make_table: MakeTable) -> None:
    table = make_table(maxlen=100)
    core = table._core
    limit = core.index.plan.row_limit()
    length = limit // 12  # live sequences of this length in every other place, up to the last row
    table.resize(limit)
    for identity in range(limit // length):
        table.add_sequence(identity, small_sequence(identity, length))
    for identity in range(1, limit // length, 2):
        table.remove(identity)
    words = core.arena.words
    words[f.MAXLEN], words[f.MAX_SEQUENCES] = 100, 100  # and no room behind them
    sequences = [(100 + i, core.converter.prepare(small_sequence(100 + i, 8))) for i in range(12)]
    load_prepared(core, sequences)
    assert table.identities().tolist() == list(range(100, 112))
    assert torn_windows(table.sample(64, 3), 3) == []
    assert table.check() == []


def test_memory_for_a_large_file_is_taken_in_large_steps(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(maxlen=5000)
    table.add_sequences((i, small_sequence(i, 1)) for i in range(5000))
    core, grown = table._core, []
    grow = core.grow
    monkeypatch.setattr(core, "grow", lambda growth: (grown.append(growth), grow(growth)))
    load_prepared(core, ((i, core.converter.prepare(small_sequence(i, 1))) for i in range(5000)))
    assert 1 < len(grown) < 20
