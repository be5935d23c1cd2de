"""Adding beside others who write: waiting, what the dead and the interrupted leave, lost slots."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    DuplicateIdentityError,
    SlotLostError,
    UniformEjectionStrategy,
    WaitTimeoutError,
)
from shmtable.index import Request, Reservation
from shmtable.index import fields as f
from shmtable.index.owners import Sweeps
from shmtable.protocols import write
from tests.table.snapshots import content, everything
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]


class Writer:
    """Somebody else who is in the middle of adding: it has reserved, and copies for ever."""

    def __init__(self, table: ArrayMemoryTable) -> None:
        self.table = pickle.loads(pickle.dumps(table))
        self.reservation: Reservation | None = None

    def reserve(self, identity: int, length: int) -> int:
        core = self.table._core
        request = Request(identity, length, length + 1, 0, False)
        while not isinstance(self.reservation, Reservation):
            outcome = core.guard.run(
                core.index.reserve_locked, request, core.victims_locked, sys._getframe()
            )
            if isinstance(outcome, Reservation):
                self.reservation = outcome
            else:
                core.grow(outcome)
        return self.reservation.slot

    def commit(self, sequence: dict[str, Any]) -> None:
        core = self.table._core
        write.copy(core, self.reservation, core.converter.prepare(sequence))
        core.guard.run(core.index.commit_locked, self.reservation)

    def abort(self) -> None:
        core = self.table._core
        assert self.reservation is not None
        core.guard.run(core.index.reclaim_locked, [self.reservation.slot])

    def die(self) -> None:
        """From now on the slot belongs to a process that has ended."""
        core = self.table._core
        assert self.reservation is not None
        core.arrays.notes[self.reservation.slot, f.OWNER_START] += 1


@contextmanager
def writing(table: ArrayMemoryTable, identity: int, length: int) -> Iterator[Writer]:
    writer = Writer(table)
    writer.reserve(identity, length)
    yield writer
    writer.table.close()


def add(table: ArrayMemoryTable, *identities: int, length: int = 10, **options: Any) -> None:
    for identity in identities:
        table.add_sequence(identity, small_sequence(identity, length), **options)


def test_what_is_being_written_is_not_in_the_table_yet(make_table: MakeTable) -> None:
    table = make_table(maxlen=30)
    add(table, 1)
    with writing(table, 2, 10) as writer:
        assert table.identities().tolist() == [1]
        assert table.size() == 10
        assert table.stats().writing_transitions == 10
        assert set(table.sample(50, 1).points.identities.tolist()) == {1}  # type: ignore
        with pytest.raises(DuplicateIdentityError, match="^identity 2 is already being written: "):
            add(table, 2)
        writer.commit(small_sequence(2, 10))
    assert table.identities().tolist() == [1, 2]
    assert table.stats().writing_transitions == 0


@pytest.mark.parametrize("timeout_s", [0.0, 0.02])
def test_room_that_others_are_writing_into_is_waited_for_so_long(
    make_table: MakeTable, timeout_s: float
) -> None:
    table = make_table(maxlen=30)
    add(table, 1)
    with writing(table, 2, 15) as writer:
        before = everything(table)
        with pytest.raises(WaitTimeoutError) as caught:
            add(table, 3, length=16, timeout_s=timeout_s)
        assert str(caught.value) == (
            f"add_sequence found no room in {timeout_s:g} s: the room left is taken by sequences "
            "that others are writing; 1 other process has the table open, 0 of them added to it: "
            f"pid {os.getpid()} (alive, never added); give it a larger timeout_s"
        )
        assert everything(table) == before
        add(table, 3, length=15)
        assert table.identities().tolist() == [3]
        writer.abort()


@pytest.mark.parametrize("end", ["commit", "abort", "die"])
def test_whoever_waits_goes_on_when_the_writer_ends(make_table: MakeTable, end: str) -> None:
    table = make_table(maxlen=30)
    with writing(table, 2, 20) as writer:
        waiting, errors = threading.Event(), []

        def wait(seen: int, timeout_s: float) -> None:
            waiting.set()
            bell_wait(seen, timeout_s)

        def body() -> None:
            try:
                add(table, 3, length=25)
            except BaseException as error:
                errors.append(error)

        bell = table._core.guard.bell
        bell_wait, bell.wait = bell.wait, wait  # type: ignore[method-assign]
        thread = threading.Thread(target=body)
        thread.start()
        assert waiting.wait(30)
        assert thread.is_alive()
        if end == "commit":
            writer.commit(small_sequence(2, 20))
        else:
            getattr(writer, end)()
        thread.join(30)
        assert not thread.is_alive()
        assert errors == []
        assert content(table) == {
            3: {name: value.tolist() for name, value in small_sequence(3, 25).items()}
        }


def test_room_that_the_dead_were_writing_into_is_taken_back(make_table: MakeTable) -> None:
    table = make_table(maxlen=30)
    with writing(table, 2, 20) as writer:
        writer.die()
        add(table, 3, length=25, timeout_s=0)
        assert table.identities().tolist() == [3]
        add(table, 2, length=25)
        assert table.identities().tolist() == [2]


class Interrupted(BaseException):
    """As Ctrl-C is, no ``Exception``."""


def failing(monkeypatch: pytest.MonkeyPatch, table: ArrayMemoryTable, at: int) -> None:
    """The ``at``-th copy from now on is cut off half way."""
    storage = table._core.storage
    done = iter(range(at))
    original = storage.write

    def copy(start: int, slot: int, prepared: Any) -> None:
        original(start, slot, prepared)
        if next(done, None) is None:
            raise Interrupted

    monkeypatch.setattr(storage, "write", copy)


def test_an_interrupted_add_gives_its_room_back(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(maxlen=30)
    add(table, 1, 2, 3)
    failing(monkeypatch, table, 0)
    with pytest.raises(Interrupted):
        add(table, 4)
    monkeypatch.undo()
    # What was ejected for it stays ejected.
    assert table.identities().tolist() == [2, 3]
    assert table.stats().writing_transitions == 0
    assert table.check() == []
    add(table, 4)
    assert table.identities().tolist() == [2, 3, 4]
    assert torn_windows(table.sample(50, 4), 4) == []


def test_an_interrupted_replacement_leaves_the_old_one(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(on_duplicate="replace")
    add(table, 1, 2)
    before = content(table)
    failing(monkeypatch, table, 0)
    with pytest.raises(Interrupted):
        table.add_sequence(1, small_sequence(9, 20))
    assert content(table) == before
    assert table.check() == []


@pytest.mark.parametrize(("at", "left"), [(0, 0), (63, 0), (64, 64), (100, 64), (129, 128)])
def test_an_interrupted_batch_leaves_what_was_committed(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, at: int, left: int
) -> None:
    table = make_table()
    failing(monkeypatch, table, at)
    with pytest.raises(Interrupted):
        table.add_sequences((identity, small_sequence(identity, 2)) for identity in range(150))
    assert table.identities().tolist() == list(range(left))
    assert table.stats().writing_transitions == 0
    assert table.check() == []


def test_what_nobody_finishes_is_taken_back_at_the_next_add(make_table: MakeTable) -> None:
    # An interrupt came while the room was being given back: its call is on no stack any more.
    table = make_table(maxlen=30)
    core = table._core

    def call() -> None:
        request = Request(5, 25, 26, 0, False)
        core.guard.run(core.index.reserve_locked, request, core.victims_locked, sys._getframe())

    add(table, 1, length=1)
    call()
    assert table.stats().writing_transitions == 25
    add(table, 2, length=29, timeout_s=0)
    assert table.identities().tolist() == [1, 2]


def test_what_an_interrupt_abandoned_is_given_back_by_the_next_sample(
    make_table: MakeTable,
) -> None:
    table = make_table(maxlen=30)
    core = table._core

    def call() -> None:
        request = Request(5, 25, 26, 0, False)
        core.guard.run(core.index.reserve_locked, request, core.victims_locked, sys._getframe())
        table.sample(1, 1)  # not yet: the call is running
        assert table.stats().writing_transitions == 25
        core.index._own_sweeps = Sweeps()  # as if a moment had passed

    add(table, 1, length=1)
    call()
    table.sample(1, 1)
    assert table.stats().writing_transitions == 0


def test_a_slot_taken_away_while_copying_is_lost_with_an_error(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table()
    core = table._core
    original = core.storage.write

    def copy(start: int, slot: int, prepared: Any) -> None:
        original(start, slot, prepared)
        core.guard.run(core.index.reclaim_locked, [slot])

    monkeypatch.setattr(core.storage, "write", copy)
    with pytest.raises(SlotLostError, match="slot 1 was reclaimed while its sequence was being "):
        add(table, 1)
    monkeypatch.undo()
    assert table.size() == 0
    assert table.check() == []
    add(table, 1)


def test_clearing_does_not_touch_what_is_being_written(make_table: MakeTable) -> None:
    table = make_table()
    add(table, 1, 2)
    with writing(table, 3, 10) as writer:
        table.clear()
        assert table.identities().tolist() == []
        writer.commit(small_sequence(3, 10))
    assert table.identities().tolist() == [3]
    assert torn_windows(table.sample(9, 5), 5) == []


def test_a_replacement_waits_for_another_of_the_same_identity(make_table: MakeTable) -> None:
    table = make_table(on_duplicate="replace")
    with writing(table, 1, 10) as writer:
        with pytest.raises(WaitTimeoutError, match="identity 1 is being written by another proc"):
            add(table, 1, timeout_s=0)
        writer.commit(small_sequence(7, 10))
        add(table, 1)
    assert content(table)[1]["actions"] == small_sequence(1, 10)["actions"].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_of_replacements_ejects_nobody_else(make_table: MakeTable, seed: int) -> None:
    # As if made one by one: each leaves as much room behind as it takes.
    table = make_table(
        maxlen=80, on_duplicate="replace", ejector=UniformEjectionStrategy(), seed=seed
    )
    add(table, *range(8))
    table.add_sequences((identity, small_sequence(identity, 10)) for identity in (1, 4, 5, 1))
    assert np.sort(table.identities()).tolist() == list(range(8))
    assert table.stats().sequences_removed == 4


def test_an_abort_that_was_cut_off_is_finished_at_the_next_add(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table()
    index = table._core.index
    leave = index._leave_locked

    def cut_off(slot: int) -> None:
        """Interrupted between its first store, which raises the generation, and its second."""
        monkeypatch.setattr(index, "_leave_locked", leave)
        index.arrays.slots[slot, f.GENERATION] += 1
        raise KeyboardInterrupt

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(write, "copy", interrupted)
        patched.setattr(index, "_leave_locked", cut_off)
        with pytest.raises(KeyboardInterrupt):
            table.add_sequence(1, small_sequence(1, 5))
    table.add_sequence(2, small_sequence(2, 5))
    assert table.stats().writing_transitions == 0
    table.add_sequence(1, small_sequence(1, 5))
    assert table.identities().tolist() == [2, 1]


def test_another_attachment_of_the_same_process_is_somebody_else(make_table: MakeTable) -> None:
    table = make_table()
    writer = Writer(table)
    slot = writer.reserve(1, 5)
    assert not table._core.index._is_ours(slot)
    assert writer.table._core.index._is_ours(slot)
    writer.commit(small_sequence(1, 5))
    assert table.identities().tolist() == [1]


def test_steps_count_only_when_they_are_committed(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table()
    table.add_sequence(1, small_sequence(1, 7))
    core = table._core

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(core.index, "_track", cut_off)
        with pytest.raises(KeyboardInterrupt):
            table.add_sequence(2, small_sequence(2, 100))
    assert table.stats().transitions_added == 7
    assert table.check() == []
