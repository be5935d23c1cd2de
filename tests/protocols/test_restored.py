"""A table is restored while somebody is adding to it: what the writer finds at its commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shmtable import ArrayMemoryTable, DuplicateIdentityError
from shmtable.protocols import write
from shmtable.protocols.core import Core
from shmtable.protocols.load import load
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]


def restore_while_copying(
    core: Core, monkeypatch: pytest.MonkeyPatch, identities: range, length: int
) -> None:
    """The next add finds, when it has copied its rows, that these sequences are the table."""
    copy = write.copy

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(write, "copy", copy)
        load(
            core,
            ((i, core.converter.prepare(small_sequence(i, length))) for i in identities),
            copy,
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
