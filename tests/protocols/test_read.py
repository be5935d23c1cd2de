"""Sampling while sequences come and go: what is drawn again, and what is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    EmptyTableError,
    MinSize,
    NoWindowError,
    UnknownIdentityError,
    WaitTimeoutError,
)
from shmtable.index import fields as f
from shmtable.protocols import read
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]
Change = Callable[[], object]


def add(table: ArrayMemoryTable, *identities: int, length: int = 10) -> None:
    for identity in identities:
        table.add_sequence(identity, small_sequence(identity, length))


def meanwhile(monkeypatch: pytest.MonkeyPatch, *changes: Change, before: bool = True) -> list[int]:
    """Has each change happen during one gather, in turn; returns the sizes of the gathers."""
    original, left, sizes = read._gather, list(changes), []

    def gather(core: Any, points: Any, steps: int) -> Any:
        sizes.append(len(points))
        change = left.pop(0) if left else lambda: None
        if before:
            change()
        columns = original(core, points, steps)
        if not before:
            change()
        return columns

    monkeypatch.setattr(read, "_gather", gather)
    return sizes


def alive(table: ArrayMemoryTable, sample: Any) -> bool:
    slots, points = table._core.arrays.slots, sample.points
    return bool(
        (slots[points.slots, f.GENERATION] == points.generations).all()
        and (slots[points.slots, f.IDENTITY] == points.identities).all()
        and sample["obs"][:: len(sample["obs"]) // len(points), 0].tolist()
        == points.identities.tolist()
        and sample["obs"][:: len(sample["obs"]) // len(points), 1].tolist()
        == points.offsets.tolist()
    )


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("layout", ["flat", "batch_time"])
@pytest.mark.parametrize("whole_bytes", [0, 1 << 20])
def test_only_the_windows_that_were_lost_are_drawn_again(
    make_table: MakeTable,
    monkeypatch: pytest.MonkeyPatch,
    before: bool,
    layout: str,
    whole_bytes: int,
) -> None:
    monkeypatch.setattr(read, "_WHOLE_BYTES", whole_bytes)
    table = make_table(maxlen=80, seed=2, layout=layout)
    add(table, *range(8))
    pick, picked = read._pick, []

    def note(*args: Any) -> Any:
        picked.append(pick(*args))
        return picked[-1]

    monkeypatch.setattr(read, "_pick", note)

    def churn() -> None:
        # 3 goes and another takes its rows; 0 is ejected for a third.
        table.remove(3)
        add(table, 103, 104)

    sizes = meanwhile(monkeypatch, churn, before=before)
    sample = table.sample(64, 4)
    [(first, _)] = picked
    stay = ~np.isin(first.identities, [0, 3])
    assert 0 < 64 - stay.sum() < 40
    assert sizes == [64, 64 if whole_bytes else 64 - stay.sum()]
    for name in ("slots", "offsets", "generations", "identities", "starts", "lengths"):
        assert (getattr(sample.points, name) == getattr(first, name))[stay].all(), name
    flat = {name: c.reshape(256, *c.shape[-1:]) if name in ("obs", "next_obs") else c.reshape(256)
            for name, c in sample.items()}  # fmt: skip
    assert torn_windows(flat, 4) == []
    sample.update(flat)
    assert alive(table, sample)
    assert not {0, 3} & set(sample.points.identities.tolist())
    assert table.stats().windows_sampled == 64


@pytest.mark.parametrize("whole_bytes", [0, 1 << 20])
def test_every_column_of_a_lost_window_is_replaced(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, whole_bytes: int
) -> None:
    monkeypatch.setattr(read, "_WHOLE_BYTES", whole_bytes)
    # Of every kind: numbers of all widths, one that numpy lacks, and the mask.
    names = ["bool", "uint8", "float16", "bfloat16", "float64", "complex64"]
    columns = [Column("actions", (), "int64"), *(Column(name, (2,), name) for name in names)]
    table = make_table(columns=columns, pad="zero", maxlen=40)

    def put(identity: int, value: int, length: int) -> None:
        filled = {name: torch.full((length, 2), value).to(getattr(torch, name)) for name in names}
        table.add_sequence(identity, {"actions": [value] * length, **filled})

    for identity in range(4):
        put(identity, 1, 8)
    sizes = meanwhile(monkeypatch, lambda: (table.clear(), put(9, 0, 3)))
    sample = table.sample(10, 5)
    assert sizes == [10, 10]
    for name in ("actions", *names):
        assert not sample[name].abs().sum() if name != "bool" else not sample[name].any(), name
    assert sample["mask"].reshape(10, 5).tolist() == [[True] * 3 + [False] * 2] * 10


def test_what_came_too_fast_is_gathered_under_the_lock_in_the_end(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(maxlen=80, seed=2)
    add(table, *range(8))
    news = iter(range(100, 1000))

    def churn() -> None:
        table.clear()
        add(table, *(next(news) for _ in range(8)))

    sizes = meanwhile(monkeypatch, *[churn] * 8)
    sample = table.sample(16, 4)
    assert sizes == [16] * 9
    assert torn_windows(sample, 4) == []
    assert alive(table, sample)
    assert table.stats().windows_sampled == 16


def test_what_is_added_once_the_last_round_has_found_nothing_is_not_waited_for(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_ROUNDS", 1)
    table = make_table()
    add(table, 1, 2)
    guard = table._core.guard
    bodies: list[Any] = []

    class Late:
        """Adds between the section that found nothing left to draw and the next one."""

        bell = guard.bell

        def run(self, body: Any, *args: Any) -> Any:
            bodies.append(body)
            if len(bodies) == 2:
                table._core.guard = guard
                add(table, 3)
            return guard.run(body, *args)

    def wait(seen: int, timeout_s: float) -> None:
        raise AssertionError("waited for what is there")

    monkeypatch.setattr(guard.bell, "wait", wait)

    def churn() -> None:
        table.clear()
        table._core.guard = Late()  # type: ignore[assignment]

    meanwhile(monkeypatch, churn)
    sample = table.sample(4, 2, timeout_s=None)
    assert bodies[0] is read._validate_locked
    assert torn_windows(sample, 2) == []
    assert set(sample.points.identities.tolist()) == {3}


def test_windows_too_large_for_that_are_an_error(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(columns=[Column("actions", (64, 1024), "float32")], maxlen=20)

    def churn() -> None:
        table.clear()
        table.add_sequence(1, {"actions": torch.zeros(5, 64, 1024)})

    churn()
    meanwhile(monkeypatch, *[churn] * 8)
    with pytest.raises(WaitTimeoutError) as caught:
        table.sample(2, 3)
    assert str(caught.value) == (
        "2 of 2 windows were ejected while they were being copied, 8 times in a row; the table is "
        "too small for the rate of adds: raise maxlen"
    )
    assert len(table.sample(2, 3)["actions"]) == 6


def test_a_table_emptied_meanwhile_has_nothing_to_draw_again(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table()
    add(table, 1, 2)
    meanwhile(monkeypatch, table.clear)
    with pytest.raises(EmptyTableError, match="^the table is empty; "):
        table.sample(4, 2)
    add(table, 1, length=5)
    meanwhile(monkeypatch, lambda: (table.clear(), add(table, 1, length=2)))
    with pytest.raises(NoWindowError, match="^sequence_length is 3, the longest of 1 sequences"):
        table.sample(4, 3)
    assert table.check() == []


def test_adding_while_gathering_loses_nothing(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table()
    add(table, 1)
    sizes = meanwhile(monkeypatch, lambda: add(table, 2, 3))
    sample = table.sample(10, 3)
    assert sizes == [10]
    assert set(sample.points.identities.tolist()) == {1}  # type: ignore[union-attr]


# -- waiting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout_s", [60.0, None])
@pytest.mark.parametrize("steps", [1, 8])
def test_a_sample_waits_for_data(
    make_table: MakeTable, timeout_s: float | None, steps: int
) -> None:
    table = make_table()
    if steps > 1:
        add(table, 1, length=5)  # too short
    waiting = threading.Event()
    bell = table._core.guard.bell
    bell_wait = bell.wait

    def wait(seen: int, timeout_s: float) -> None:
        waiting.set()
        bell_wait(seen, timeout_s)

    bell.wait = wait  # type: ignore[method-assign]
    results: list[Any] = []
    thread = threading.Thread(
        target=lambda: results.append(table.sample(3, steps, timeout_s=timeout_s))
    )
    thread.start()
    assert waiting.wait(30)
    assert results == []
    add(table, 2)
    thread.join(30)
    assert not thread.is_alive()
    assert torn_windows(results[0], steps) == []


def test_waiting_has_an_end(make_table: MakeTable) -> None:
    table = make_table()
    with pytest.raises(WaitTimeoutError) as caught:
        table.sample(1, 1, timeout_s=0.02)
    assert str(caught.value) == (
        "waited 0.02 s for something to sample: the table is empty; "
        "no other process has the table open: see whether the others run, and were passed it"
    )
    assert isinstance(caught.value, TimeoutError)


# -- reading one sequence ----------------------------------------------------------------------


@pytest.mark.parametrize("limiter", [None, MinSize(3)])
def test_what_is_added_between_the_pick_and_the_error_is_sampled(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, limiter: Any
) -> None:
    table = make_table(limiter=limiter)
    original, picks = read._pick_locked, []

    def pick(core: Any, *args: Any) -> Any:
        found = original(core, *args)
        if not picks:
            monkeypatch.setattr(read, "_pick_locked", original)
            picks.append(found[0])
        return found

    monkeypatch.setattr(read, "_pick_locked", pick)
    over = read.Wait.is_over

    def is_over(wait: Any) -> bool:
        if not len(table):
            table.add_sequence(1, small_sequence(1, 5))
        return over(wait)

    monkeypatch.setattr(read.Wait, "is_over", is_over)
    assert torn_windows(table.sample(4, 2), 2) == []
    assert picks == [None]


def test_what_the_last_writer_added_before_it_died_is_sampled(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table()

    def died(core: Any) -> str:
        if not len(table):
            add(table, 1)  # right after the section that found nothing
        return "all of them died"

    monkeypatch.setattr(read, "died", died)
    assert torn_windows(table.sample(4, 2, timeout_s=None), 2) == []
    with pytest.raises(WaitTimeoutError, match="nobody left who could add: all of them died"):
        table.sample(1, 11, timeout_s=None)


def test_a_sequence_that_leaves_while_it_is_read_is_read_again(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(on_duplicate="replace", maxlen=20)
    add(table, 1)
    storage = table._core.storage
    original, changes = storage.read, [lambda: table.add_sequence(1, small_sequence(7, 9))]

    def copy(name: str, start: int, count: int) -> torch.Tensor:
        rows = original(name, start, count)
        if changes:
            changes.pop()()
        return rows

    monkeypatch.setattr(storage, "read", copy)
    found = table.sequence(1)
    assert {name: c.tolist() for name, c in found.items()} == {
        name: c.tolist() for name, c in small_sequence(7, 9).items()
    }
    changes.append(lambda: table.remove(1))
    with pytest.raises(UnknownIdentityError, match="identity 1 is not in the table"):
        table.sequence(1)


@pytest.mark.parametrize("whole_bytes", [0, 1 << 20])
@pytest.mark.parametrize("rounds", [1, 8])
def test_windows_updated_while_others_leave_are_drawn_again(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, rounds: int, whole_bytes: int
) -> None:
    # One round: what is lost then is gathered under the lock.
    monkeypatch.setattr(read, "_ROUNDS", rounds)
    monkeypatch.setattr(read, "_WHOLE_BYTES", whole_bytes)
    table = make_table(maxlen=80, seed=2)
    add(table, *range(8))
    points = table.sample(200, 1).points
    points = points.at(points.identities == 5)

    def churn() -> None:
        table.remove(3)
        table.update(points, "rewards", np.full((len(points), 1), -1.0, np.float32))

    meanwhile(monkeypatch, churn, before=False)
    sample = table.sample(64, 1)
    identities = sample.points.identities
    assert not (identities == 3).any()
    assert (identities == 5).any()
    changed = np.isin(sample.points.offsets, points.offsets) & (identities == 5)
    assert (sample["rewards"].reshape(-1)[changed] == -1).all()
    assert (sample["rewards"].reshape(-1)[identities != 5] != -1).all()
