"""A process may die after any store: the others find its call done or not begun, and go on."""

from __future__ import annotations

import pytest

from tests.chaos.every_store import every_store
from tests.chaos.scenarios import SCENARIOS, Scenario


@pytest.mark.parametrize("lock", ["robust", "portable"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_death_after_every_store(scenario: Scenario, lock: str) -> None:
    deaths = every_store(scenario, lock)
    print(f"{scenario.name}, {lock} lock: killed after each of {deaths} stores")
    assert deaths > 0
