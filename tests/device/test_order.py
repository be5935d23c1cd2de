"""In which order things happen, on a device that does what it is asked for as late as it may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import table as table_module
from shmtable.protocols import read, update, write
from tests.device.backends import LateBackend
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., Any]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> LateBackend:
    backend = LateBackend()
    monkeypatch.setattr(table_module, "storage_backend", lambda device, directory: backend)
    return backend


def logged(monkeypatch: pytest.MonkeyPatch, late: LateBackend, module: Any, name: str) -> None:
    """Have calls of a module's function stand in the log, too."""
    original = getattr(module, name)

    def call(*args: Any) -> Any:
        late.log.append(name)
        return original(*args)

    monkeypatch.setattr(module, name, call)


def filled(make_table: MakeTable, **options: Any) -> Any:
    table = make_table(**options)
    for identity in range(8):
        table.add_sequence(identity, small_sequence(identity, 10))
    return table


def test_rows_are_there_before_the_sequence_is(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, late: LateBackend
) -> None:
    table = make_table()
    logged(monkeypatch, late, write, "_commit_locked")
    given = small_sequence(1, 5)
    table.add_sequence(1, given)
    # A sequence of the CPU's: one copy for all columns, which lie side by side.
    assert late.log == ["begin", "copy", "complete", "_commit_locked"]
    late.log.clear()
    tensors = {name: torch.as_tensor(rows) for name, rows in small_sequence(2, 5).items()}
    table.add_sequence(2, tensors)
    # The device's own: what the caller has begun with them comes first.
    assert late.log == ["after caller", *["copy"] * 3, "complete", "_commit_locked"]
    for identity in (1, 2):
        found = table.sequence(identity)
        for name, rows in small_sequence(identity, 5).items():
            np.testing.assert_array_equal(found[name].numpy(), rows)


def test_a_sample_is_copied_before_it_is_validated(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, late: LateBackend
) -> None:
    table = filled(make_table)
    logged(monkeypatch, late, read, "_validate_locked")
    late.log.clear()
    sample = table.sample(16, 4)
    assert torn_windows(sample, 4) == []
    # One transfer of places, and one copy of all columns as they are and one of a step later.
    assert late.log == ["begin", "send", "select", "select", "complete", "_validate_locked"]


@pytest.mark.parametrize("whole", [True, False])
def test_what_leaves_before_the_copy_is_noticed(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, late: LateBackend, whole: bool
) -> None:
    if not whole:
        monkeypatch.setattr(read, "_WHOLE_BYTES", 0)
    table = filled(make_table, maxlen=80)
    changes = [lambda: [table.add_sequence(i, small_sequence(i, 10)) for i in range(20, 28)]]

    def churn() -> None:
        # The CPU has gone on to do other things by the time that the device copies.
        if changes and late.log[-1] == "select":
            operations, late._late = late._late, []
            changes.pop()()
            late._late = operations

    late.at_the_end = churn
    late.log.clear()
    sample = table.sample(32, 4)
    assert changes == []
    assert torn_windows(sample, 4) == []
    assert int(sample["obs"][:, 0].min()) >= 20
    # What is drawn anew is gathered, or put in its places, by work that is waited for as well.
    last = late.log[-late.log[::-1].index("begin") - 1 :]
    if whole:
        assert last == ["begin", "send", "select", "select", "complete"]
    else:
        assert last == ["begin", "send", *["scatter"] * len(sample), "complete"]


def test_updates_are_there_before_the_lock_is_let_go(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, late: LateBackend
) -> None:
    table = filled(make_table)
    points = table.sample(4, 2).points
    late.log.clear()
    original = update._update_locked

    def update_locked(*args: Any) -> int:
        found = original(*args)
        late.log.append("unlock")
        return found

    monkeypatch.setattr(update, "_update_locked", update_locked)
    assert table.update(points, "rewards", torch.zeros(4, 2)) == 4
    assert late.log == ["begin", "send", "send", "scatter", "complete", "unlock"]


def test_files_hold_what_the_device_does(
    make_table: MakeTable, late: LateBackend, tmp_path: Path
) -> None:
    table = filled(make_table)
    table.store(tmp_path / "t")
    table.clear()
    table.restore(tmp_path / "t")
    for identity in range(8):
        found = table.sequence(identity)
        for name, rows in small_sequence(identity, 10).items():
            np.testing.assert_array_equal(found[name].numpy(), rows)
    assert torn_windows(table.sample(16, 4), 4) == []


def test_rows_are_given_back_when_nothing_is_copied_to_them_any_more(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, late: LateBackend
) -> None:
    table = make_table()
    with monkeypatch.context() as patched:

        def torn(*_: Any) -> None:
            # As Ctrl-C between two steps of the interpreter: no end of the work is reached.
            late.copy(torch.zeros(1), torch.ones(1))
            raise KeyboardInterrupt

        patched.setattr(write, "copy", torn)
        with pytest.raises(KeyboardInterrupt):
            table.add_sequence(1, small_sequence(1, 5))
    assert late.log == ["copy", "complete"]
    assert len(table.identities()) == 0


def test_an_error_in_a_batch_leaves_nothing_under_way(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, late: LateBackend
) -> None:
    table = filled(make_table)

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(late, "select", fail)
        with pytest.raises(ZeroDivisionError):
            table.sample(4, 2)
    assert late._late == [] and late.log[-1] == "complete"
    assert torn_windows(table.sample(16, 4), 4) == []
