"""A table that grows, and moves to large pages, while others read and write it and are killed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shmtable import ArrayMemoryTable, EmptyTableError
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link

WIDTH = 512  # a row has 4 KiB: 12,000 of them are 24 blocks of 2 MiB
LENGTH = 20
MAXLEN = 12_000


def _write(table: ArrayMemoryTable, first: int) -> None:
    identity = first
    while not link().told():
        table.add_sequence(identity, content.sequence(identity, LENGTH, width=WIDTH))
        identity += 1


def _read(table: ArrayMemoryTable) -> int:
    rounds = 0
    while not link().told():
        try:
            assert content.wrong_with(table.sample(16, 4), 4) == []
            rounds += 1
        except EmptyTableError:
            pass
    return rounds


@pytest.mark.parametrize("lock", ["robust", "portable"])
@pytest.mark.parametrize("named", [True, False])
def test_nothing_is_torn_and_nobody_is_held_up_by_a_death(
    make_table: Callable[..., ArrayMemoryTable],
    unique_name: Callable[[], str],
    lock: str,
    named: bool,
) -> None:
    name = unique_name() if named else None
    table = make_table(columns=content.columns(WIDTH), maxlen=MAXLEN, lock=lock, name=name)
    with Crew("fork") as crew:
        reader = crew.add(_read, table)
        writers = [crew.add(_write, table, number * 1_000_000) for number in range(1, 3)]
        doomed = crew.add(_write, table, 9_000_000)
        crew.go()
        while table.size() < MAXLEN // 3:
            pass
        doomed.kill()  # in the middle of whatever it does
        while not table.full():
            assert content.wrong_with(table.sample(4, 4), 4) == []
        for member in (reader, *writers):
            member.tell("stop")
        crew.results()
    assert reader.result > 0
    assert table.check() == []
    for identity in table.identities().tolist():
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []
