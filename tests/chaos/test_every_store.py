"""A process may die after any store: the others find its call done or not begun, and go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.every_store import Trial
from tests.chaos.scenario import Scenario, clears, gives_priority, makes_live
from tests.chaos.scenarios import SCENARIOS

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
# The lock kinds differ in how they come free and in nothing that is stored, so one of them needs
# no more than a call of each sort. ``python -m tests.chaos --every-store`` tries all with both.
EITHER_LOCK = ("add", "replace", "remove between gaps", "clear", "resize", "grow the identity map")
CASES = [(scenario, "robust") for scenario in SCENARIOS]
CASES += [(BY_NAME[name], "portable") for name in EITHER_LOCK]


@pytest.mark.parametrize(("scenario", "lock"), CASES, ids=str)
def test_death_after_every_store(scenario: Scenario, lock: str) -> None:
    with scenario.table(lock) as table:
        deaths = Trial(scenario, table).every_death()
    print(f"{scenario.name}, {lock} lock: killed after each of {deaths} stores")
    assert deaths > 0


@pytest.mark.parametrize(
    ("name", "store", "lock"),
    [
        ("replace", makes_live, "robust"),
        ("clear", clears, "portable"),
        ("update priorities", gives_priority, "robust"),
        ("add with priorities", makes_live, "robust"),
    ],
)
def test_death_after_every_store_of_the_recovery(
    name: str, store: Callable[[str], bool], lock: str
) -> None:
    with BY_NAME[name].table(lock) as table:
        trial = Trial(BY_NAME[name], table)
        deaths = trial.every_second_death(trial.find(store))
    print(f"{name}, {lock} lock: killed after each of {deaths} stores of the recovery")
    assert deaths > 0
