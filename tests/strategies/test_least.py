"""The lowest priority goes first."""

from __future__ import annotations

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    LowestPriorityEjectionStrategy,
    SpecError,
    UniformSampleStrategy,
)
from tests.strategies.derived import wrong_with_derived
from tests.strategies.prioritized import MakeTable, add, narrow, points_at


def table_with(make_table: MakeTable, maxlen: int, eta: float = 0.9) -> ArrayMemoryTable:
    """A sampler that knows nothing of priorities: the ejector keeps its own."""
    return narrow(
        make_table,
        maxlen=maxlen,
        sampler=UniformSampleStrategy(),
        ejector=LowestPriorityEjectionStrategy(eta),
    )


def test_given_updated_and_highest_priorities_decide(make_table: MakeTable) -> None:
    table = table_with(make_table, 30)
    for identity, priority in enumerate([0.5, 3.0, 0.0, 2.0, None]):
        add(table, identity, 6, priority)  # the last gets the highest, 3
    assert table.update_priorities(points_at(table, (0, 2), (4, 1), (0, 3)), [9, 1, 4]) == 3
    expected = [2, 4, 3, 1]  # 0, 1, 2, 3; and 4 of the first
    left = [0, 1, 2, 3, 4]
    for number, gone in enumerate(expected, 10):
        add(table, number, 6, 9.5)
        left.remove(gone)
        assert table.identities().tolist() == [*left, *range(10, number + 1)]
    assert wrong_with_derived(table) == []


def test_several_go_for_a_long_one(make_table: MakeTable) -> None:
    table = table_with(make_table, 20)
    for identity, priority in enumerate([4, 1, 3, 2, 5]):
        add(table, identity, 4, priority)
    add(table, 9, 11)
    assert table.identities().tolist() == [0, 4, 9]


def test_of_priorities_per_transition_it_is_the_mix(make_table: MakeTable) -> None:
    table = table_with(make_table, 12, eta=0.5)
    add(table, 0, 4, [0, 0, 0, 8])  # 0.5 * 8 + 0.5 * 2 = 5
    add(table, 1, 4, [4, 4, 4, 4])
    add(table, 2, 4, 6)
    add(table, 3, 4, 100)
    assert table.identities().tolist() == [0, 2, 3]
    table.update_priorities(points_at(table, (2, 1)), [[1.0, 3.0, 77.0]][:1])
    # 0.5 * 77 + 0.5 * 27 = 52
    add(table, 4, 4, 100)
    assert table.identities().tolist() == [2, 3, 4]


def test_it_agrees_with_a_sorted_list(make_table: MakeTable) -> None:
    table = table_with(make_table, 400)
    random = np.random.default_rng(0)
    model: dict[int, float] = {}
    for identity in range(500):
        priority = float(random.exponential())
        if len(model) == 80:
            del model[min(model, key=lambda i: model[i])]
        add(table, identity, 5, priority)
        model[identity] = priority
        some = [int(i) for i in random.choice(list(model), 3)]
        new = random.exponential(size=3)
        table.update_priorities(points_at(table, *((i, 0) for i in some)), new)
        model.update(zip(some, new.tolist(), strict=True))
    assert table.identities().tolist() == list(model)
    assert wrong_with_derived(table) == []


@pytest.mark.parametrize("eta", [-1, 1.5, None])
def test_settings_that_cannot_be(eta: object) -> None:
    with pytest.raises(SpecError, match="eta is .*give a number from 0 to 1"):
        LowestPriorityEjectionStrategy(eta)  # type: ignore[arg-type]
