"""The chaos tests notice builds that are broken: each sees the one it is there for."""

from __future__ import annotations

import pytest

from shmtable import SlotLostError
from shmtable.index import manager, rebuild
from shmtable.index.manager import Index
from tests.chaos.every_store import Trial
from tests.chaos.mutants import Mutant
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.storm import Storm

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}

LIVE = "slots[base + f.STATE] = f.LIVE  # the commit point\n"
ORDER = "slots[base + f.ORDER] = order\n"

# By name: the scenario whose deaths find it, and by what.
BROKEN = {
    "live before its order is stored": (
        "add",
        "orders are unique",
        Mutant(Index, "commit_locked", {ORDER: "pass\n", LIVE: f"{LIVE}    {ORDER}"}),
    ),
    "ejecting without the dirty word": (
        "remove between gaps",
        "live count is that of the slots",
        Mutant(Index, "eject_locked", {"self.words[DIRTY] = 1": "pass"}),
    ),
    "clearing one by one": (
        "clear",
        r"assert 5 == \(2 - 1\)",  # stages in which others find the table
        Mutant(
            Index,
            "clear_locked",
            {
                "words[f.LIVE_FROM] = words[f.NEXT_ORDER]": (
                    "[self._leave_locked(slot) for slot in self.arrays.in_state(f.LIVE).tolist()]"
                )
            },
        ),
    ),
    "replacing by ejecting first": (
        "replace where it is full",
        r"assert 3 == \(3 - 1\)",
        Mutant(
            Index,
            "_store_reservation_locked",
            {"for slot in leaving.slots:": "for slot in [*leaving.slots, old]:"},
        ),
    ),
    "recovery that leaves the room of the dead": (
        "add",
        "DuplicateIdentityError.* is already being written",
        Mutant(rebuild, "_settle_locked", {"_free(slots, np.array(dead, np.int64))": "pass"}),
        Mutant(manager, "owner_is_gone", {"return process": "return False and process"}),
    ),
}


@pytest.mark.parametrize("build", BROKEN)
def test_deaths_after_every_store_find_a_broken_build(
    build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, symptom, *mutants = BROKEN[build]
    with BY_NAME[name].table("robust") as table, monkeypatch.context() as patched:
        for mutant in mutants:
            mutant.build(patched)
        with pytest.raises(AssertionError, match=symptom):
            Trial(BY_NAME[name], table).every_death()


def test_a_storm_finds_a_build_that_believes_the_living_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Mutant(manager, "owner_is_gone", {"return process": "return True or process"}).build(
        monkeypatch
    )
    # A torn window or a lost slot, seen by a worker or by the survivor itself.
    with pytest.raises((AssertionError, SlotLostError)):
        Storm("robust", 3, seed=1).rage(30.0)


def test_a_mutant_of_a_function_that_has_changed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="eject_locked has changed: 'not there'"):
        Mutant(Index, "eject_locked", {"not there": ""}).build(monkeypatch)
