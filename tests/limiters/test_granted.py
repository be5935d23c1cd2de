"""Adds that proceed as far as they were granted, by whoever paces several tables together."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shmtable import ArrayMemoryTable, RateLimitedError, SpecError
from shmtable.limiters import Granted, Standing
from shmtable.protocols.pace import Grant
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]


def grant(table: ArrayMemoryTable, amount: int) -> Grant:
    return table._core.guard.run(table._core.pace.grant_locked, amount)


def test_adds_are_held_back_beyond_what_is_granted() -> None:
    limiter = Granted(0.5)
    assert limiter.insert_blocked(Standing(0, ahead=-5.0), 10) == ""
    assert "(0.5 transitions more than granted)" in limiter.insert_blocked(
        Standing(0, ahead=-5.0), 11
    )
    assert limiter.insert_blocked(Standing(0, writing=4, ahead=-5.0), 6) == ""
    assert limiter.insert_blocked(Standing(0, writing=4, ahead=-5.0), 7)
    assert limiter.sample_blocked(Standing(0, ahead=-5.0), 1000) == ""


@pytest.mark.parametrize("ratio", [0, -1.0, float("nan"), float("inf")])
def test_a_ratio_that_cannot_be_is_refused(ratio: float) -> None:
    with pytest.raises(SpecError, match="give a number above 0"):
        Granted(ratio)


def test_grants_are_used_taken_back_and_seen_by_all(
    make_table: MakeTable, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    table = make_table(name=name, limiter=Granted(1.0))
    with pytest.raises(RateLimitedError):
        table.add_sequence(1, small_sequence(1, 1), timeout_s=0)
    assert grant(table, 10).unused == 10
    with ArrayMemoryTable.attach(name) as other:
        assert other.limiter == Granted(1.0)
        other.add_sequence(1, small_sequence(1, 8), timeout_s=0)
        with pytest.raises(RateLimitedError, match="ahead of samples by all that the limiter"):
            other.add_sequence(2, small_sequence(2, 8), timeout_s=0)
        assert grant(other, -100) == Grant(-2, 0, 8, 8, 8)
    assert len(table.sample(5, 2)["obs"]) == 10  # samples are not its business
    assert grant(table, 0).unused == 0


def test_what_is_being_written_is_not_taken_back(make_table: MakeTable) -> None:
    table = make_table(limiter=Granted(1.0, "sequence"))
    grant(table, 2)
    table.add_sequence(1, small_sequence(1, 8), timeout_s=0)
    assert grant(table, -5) == Grant(-1, 0, 1, 0, 1)


def test_after_a_clear_nothing_is_granted(make_table: MakeTable) -> None:
    table = make_table(limiter=Granted(1.0))
    grant(table, 100)
    table.add_sequence(1, small_sequence(1, 8))
    table.clear()
    with pytest.raises(RateLimitedError):
        table.add_sequence(1, small_sequence(1, 1), timeout_s=0)
    assert grant(table, 1).unused == 1
