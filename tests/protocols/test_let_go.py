"""A table that is let go while something of it is unfinished: whose that is then."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from shmtable import ArrayMemoryTable, DuplicateIdentityError
from shmtable.index import Request
from shmtable.protocols import Core
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]


def abandon(core: Core) -> None:
    request = Request(5, 25, 26, 0, False)
    core.guard.run(core.index.reserve_locked, request, core.victims_locked, sys._getframe())


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_what_an_interrupt_abandoned_is_nobodys_once_the_table_is_let_go(
    make_table: MakeTable, unique_name: Callable[[], str], how: str
) -> None:
    name = unique_name()
    others = make_table(maxlen=30, name=name)
    table = ArrayMemoryTable.attach(name)
    abandon(table._core)
    if how == "closed":
        table.close()
        assert others.stats().writing_transitions == 0
    del table
    gc.collect()
    with ArrayMemoryTable.attach(name) as again:
        again.add_sequence(5, small_sequence(5, 30), timeout_s=0)


def test_closing_leaves_alone_what_another_thread_is_adding(
    make_table: MakeTable, unique_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique_name()
    others = make_table(maxlen=30, name=name)
    table = ArrayMemoryTable.attach(name)
    begun, go_on = threading.Event(), threading.Event()
    original = table._core.storage.write

    def copy(start: int, slot: int, prepared: Any) -> None:
        begun.set()
        go_on.wait()
        original(start, slot, prepared)

    monkeypatch.setattr(table._core.storage, "write", copy)
    adding = threading.Thread(target=table.add_sequence, args=(5, small_sequence(5, 10)))
    adding.start()
    begun.wait()
    table.close()
    gc.collect()
    with ArrayMemoryTable.attach(name) as again:
        assert again._core.guard.run(again._core.index.sweep_locked) == 0
        with pytest.raises(DuplicateIdentityError):
            again.add_sequence(5, small_sequence(5, 10))
        go_on.set()
        adding.join()
        assert others.identities().tolist() == [5]
