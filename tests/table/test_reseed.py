"""Drawing as a seed says, in one process."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from shmtable import SpecError
from tests.tables import small_sequence


@pytest.fixture
def table(make_table) -> Any:
    table = make_table(seed=1)
    for identity in range(10):
        table.add_sequence(identity, small_sequence(identity, 50))
    return table


def drawn(table: Any) -> list[int]:
    return [int(offset) for _ in range(3) for offset in table.sample(16, 1).points.offsets]


def test_the_same_seed_gives_the_same_draws(table: Any) -> None:
    streams = []
    for seed in (5, [5], [5, 1], 6, 5):
        table.reseed(seed)
        streams.append(drawn(table))
    assert streams[0] == streams[1] == streams[4]
    assert len({str(stream) for stream in streams}) == 3


def test_other_holds_of_the_table_go_on_as_before(table: Any) -> None:
    with copy.copy(table) as other:
        table.reseed(5)
        mine = drawn(table)
        assert drawn(other) != mine
        table.reseed(5)
        assert drawn(table) == mine


@pytest.mark.parametrize("seed", [-1, [1, -1], [], 1.5, "x"])
def test_what_is_no_seed(table: Any, seed: Any) -> None:
    with pytest.raises(SpecError, match="seed is"):
        table.reseed(seed)
