"""Rows between sequences: how many go unused, and what happens when no gap is wide enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    Column,
    EjectionStrategy,
    FifoEjectionStrategy,
    UniformEjectionStrategy,
)
from shmtable.index import fields as f
from shmtable.index import plan

MakeTable = Callable[..., ArrayMemoryTable]
MAXLEN = 20_000


def narrow(make_table: MakeTable, **options: Any) -> ArrayMemoryTable:
    """One small column, of which every row says whose it is: identity * 1000 + step."""
    defaults = {"columns": [Column("actions", (), "int64")], "maxlen": MAXLEN, "seed": 1}
    return make_table(**{**defaults, **options})


def rows(identity: int, length: int) -> dict[str, Any]:
    return {"actions": identity * 1000 + np.arange(length)}


def intact(table: ArrayMemoryTable) -> bool:
    return all(
        np.array_equal(found, identity * 1000 + np.arange(len(found)))
        for identity in table.identities().tolist()
        for found in [table.sequence(identity)["actions"].numpy()]
    )


def physical(table: ArrayMemoryTable) -> float:
    """Rows up to the last one in use, for each live transition."""
    core = table._core
    ends = core.arrays.slots[core.view.live_slots()][:, [f.START, f.SPAN]].sum(1)
    return float(ends.max()) / table.size()


LENGTHS: dict[str, Callable[[np.random.Generator], int]] = {
    "equal": lambda random: 100,
    "1 to 200": lambda random: int(random.integers(1, 201)),
    "mostly short, few long": lambda random: int(
        random.choice([1, 3, 10, 900], p=[0.3, 0.3, 0.3, 0.1])
    ),
    "growing": lambda random: int(random.integers(1, 20)) ** 2,
}


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(
    ("ejector", "most"), [(FifoEjectionStrategy, 1.1), (UniformEjectionStrategy, 1.35)]
)
def test_physical_use_stays_close_to_what_is_live(
    make_table: MakeTable, lengths: str, ejector: type[EjectionStrategy], most: float
) -> None:
    table = narrow(make_table, ejector=ejector())
    random = np.random.default_rng(5)
    added, identity, worst = 0, 0, 0.0
    while added < 6 * MAXLEN:
        batch = [LENGTHS[lengths](random) for _ in range(30)]
        table.add_sequences((identity + n, rows(identity + n, one)) for n, one in enumerate(batch))
        identity, added = identity + len(batch), added + sum(batch)
        if added > 2 * MAXLEN:
            assert table.size() > 0.9 * MAXLEN
            worst = max(worst, physical(table))
    # What was touched at any time, and so is memory taken from the system.
    touched = table._core.arena.words[f.ROW_HIGH] / MAXLEN
    assert worst <= most, f"{worst:.3f} rows for each live transition, {touched:.3f} touched"
    assert touched <= most + 0.05
    assert intact(table)


def test_a_full_table_takes_little_more_memory_than_its_content(make_table: MakeTable) -> None:
    # Wide rows: memory is taken in steps of at least 256 KiB, which are few of them.
    columns = [Column("frames", (500,), "uint8"), Column("actions", (), "int64")]
    table = narrow(make_table, columns=columns, length_key="actions")
    random = np.random.default_rng(5)
    frames = np.zeros((1000, 500), np.uint8)
    added, identity, sizes = 0, 0, []
    while added < 6 * MAXLEN:
        length = int(np.clip(random.lognormal(4.6, 0.8), 10, 999))
        table.add_sequence(identity, {"frames": frames[:length], **rows(identity, length)})
        identity, added = identity + 1, added + length
        if added > 2 * MAXLEN:
            sizes.append(table.size())
    # Rather eject one sequence more now and then than take memory that is never given back.
    assert np.mean(sizes) > 0.985 * MAXLEN
    assert min(sizes) > MAXLEN - 3 * 999
    reserved = table._core.arena.words[f.RESERVED_ROWS]
    assert reserved < 1.04 * np.mean(sizes), f"{reserved / np.mean(sizes):.3f}"
    assert intact(table)


def test_below_maxlen_memory_comes_before_ejections(make_table: MakeTable) -> None:
    columns = [Column("frames", (500,), "uint8"), Column("actions", (), "int64")]
    table = narrow(make_table, columns=columns, length_key="actions", max_sequences=150)
    frames = np.zeros((10_000, 500), np.uint8)

    def add(identity: int, length: int) -> None:
        table.add_sequence(identity, {"frames": frames[:length], **rows(identity, length)})

    for identity in range(120):
        add(identity, 100)
    add(1000, 10_000)
    assert table.size() == MAXLEN  # of the first 12,000, no more than 2,000 had to go
    table.clear()
    # Ever longer ones, while the number of sequences is what keeps the table full.
    for identity in range(150):
        add(identity, 10)
    for identity in range(150, 300):
        add(identity, 130)
        assert len(table.identities()) == 150
    assert table.size() == 150 * 130


def scarce(monkeypatch: pytest.MonkeyPatch, table: ArrayMemoryTable, share: float = 1.0) -> None:
    """Rows for ``share`` of maxlen and no more, where a table has three times as many."""
    monkeypatch.setattr(plan, "row_limit", lambda maxlen, sequences, extra: int(maxlen * share))


@pytest.mark.parametrize("share", [1.0, 1.25])
@pytest.mark.parametrize("ejector", [FifoEjectionStrategy, UniformEjectionStrategy])
def test_where_rows_are_scarce_more_are_ejected_and_every_add_succeeds(
    make_table: MakeTable,
    monkeypatch: pytest.MonkeyPatch,
    ejector: type[EjectionStrategy],
    share: float,
) -> None:
    table = narrow(make_table, maxlen=400, ejector=ejector())
    scarce(monkeypatch, table, share)
    random = np.random.default_rng(8)
    for identity in range(400):
        table.add_sequence(identity, rows(identity, int(random.choice([1, 2, 7, 40, 200, 400]))))
        assert table.identities()[-1] == identity
        if identity % 10 == 0:
            assert table.check() == []
            assert table._core.arena.words[f.ROW_HIGH] <= 400 * share
    assert intact(table)


def test_only_more_ejections_make_room_when_the_free_rows_lie_apart(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every second of 200 rows is free: 100 transitions would fit, but not two in a row.
    table = narrow(make_table, maxlen=200)
    scarce(monkeypatch, table)
    for identity in range(200):
        table.add_sequence(identity, rows(identity, 1))
    for identity in range(0, 200, 2):
        table.remove(identity)
    assert table.size() == 100
    table.add_sequence(1000, rows(1000, 20))
    left = table.identities().tolist()
    # First in, first out: the oldest have gone, in two bites at most.
    assert left == [*range(201 - 2 * (len(left) - 1), 200, 2), 1000]
    assert len(left) - 1 >= 100 - 2 * 20
    assert table.check() == []
    assert intact(table)
    assert table.full()


@pytest.mark.parametrize("ejector", [FifoEjectionStrategy, UniformEjectionStrategy])
def test_a_huge_sequence_is_replaced_in_a_fragmented_table(
    make_table: MakeTable, ejector: type[EjectionStrategy]
) -> None:
    table = narrow(make_table, maxlen=1000, ejector=ejector(), on_duplicate="replace")
    random = np.random.default_rng(3)
    table.add_sequences((identity, rows(identity, 7)) for identity in range(140))
    for identity in random.permutation(140)[:100].tolist():
        table.remove(identity)
    others = table.identities().tolist()
    for length in (700, 720, 650, 720):
        # The old one stays until the new one is written: both have their rows for a while.
        table.add_sequence(5000, rows(5000, length))
        assert table.identities().tolist() == [*others, 5000]
        assert len(table.sequence(5000)["actions"]) == length
        assert table.check() == []
    table.add_sequence(5000, rows(5000, 1000))
    assert table.identities().tolist() == [5000]
    table.add_sequence(5000, rows(5000, 1000))
    assert intact(table)
    assert table.size() == 1000


@pytest.mark.parametrize("start", [0, 1, 99, 100, 150, 201, 300])
def test_wherever_a_sequence_lies_another_as_large_fits_beside_it(
    make_table: MakeTable, start: int
) -> None:
    table = narrow(make_table, maxlen=100, max_sequences=1, on_duplicate="replace")
    table.add_sequence(1, rows(1, 100))
    core = table._core
    for _ in range(3):  # have the rows reserved that it is about to be moved to
        table.add_sequence(1, rows(1, 100))
    (slot,) = core.view.live_slots().tolist()
    core.grow(plan.Growth(start + 100, 2, 1024))
    core.arrays.slots[slot, f.START] = start
    core.arrays.row_slot[start : start + 100] = slot
    core.guard.run(core.index.rebuild_locked)
    assert table.check() == []
    table.add_sequence(1, rows(1, 100), timeout_s=0)
    assert table.check() == []
    assert intact(table)
