"""The checker itself: it visits everything, finds what is wrong, and tells the shortest story."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

import pytest

from tests.model.adding import Add, Remove
from tests.model.checker import Step, TooManyStates, explore
from tests.model.machine import Machine
from tests.model.reading import Read, Update
from tests.model.rules import Bounds
from tests.model.scenarios import holds


class Counter:
    """Counts up by one or by three; ``bad`` and ``end`` are numbers."""

    name = "counter"

    def __init__(self, bad: int = -1, end: int = 10) -> None:
        self.bad = bad
        self.end = end

    def initial(self) -> Iterable[int]:
        return [0]

    def steps(self, state: Hashable) -> Iterator[Step]:
        assert isinstance(state, int)
        for step in (1, 3):
            if state + step <= self.end:
                yield Step(f"+{step}", state + step)

    def problem(self, state: Hashable) -> str:
        return f"reached {state}" if state == self.bad else ""

    def finished(self, state: Hashable) -> bool:
        return state == 10

    def show(self, before: Hashable, after: Hashable) -> str:
        return f"{before} to {after}"


def test_every_state_is_visited_once() -> None:
    verdict = explore(Counter())
    assert verdict.holds
    assert (verdict.states, verdict.depth) == (11, 5)
    assert str(verdict) == "counter: holds (11 states, 18 steps, depth 5)"


def test_the_story_is_a_shortest_one() -> None:
    verdict = explore(Counter(bad=7))
    assert verdict.problem == "reached 7"
    assert len(verdict.trace) == 3
    assert "BROKEN: reached 7" in str(verdict)
    assert verdict.trace[-1].endswith("6 to 7") or verdict.trace[-1].endswith("4 to 7")


def test_work_left_and_no_step_is_stuck() -> None:
    assert explore(Counter(end=9)).problem.startswith("stuck")


def test_a_fault_is_no_way_out_of_being_stuck() -> None:
    class Doomed(Counter):
        def steps(self, state: Hashable) -> Iterator[Step]:
            for step in super().steps(state):
                yield step._replace(fault=state == 9)

    assert explore(Counter()).holds
    assert explore(Doomed()).problem.startswith("stuck")


def test_bounds_that_are_too_wide_are_an_error_and_no_result() -> None:
    with pytest.raises(TooManyStates, match="more than 4 states"):
        explore(Counter(), max_states=4)


def test_replaying_a_section_in_one_go_hides_nothing() -> None:
    """The two grains (see `machine`) agree; the coarse one is the cheaper one."""
    scripts = ((Add(0, 1), Update()), (Add(1, 2), Remove(0)), (Read(),))
    coarse, fine = (
        holds(
            Machine(
                f"grain, every store: {every}",
                *scripts,
                bounds=Bounds(crashes=1, every_store=every),
            )
        )
        for every in (False, True)
    )
    assert coarse.states < fine.states
