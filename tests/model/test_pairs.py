"""Every call beside every other one, on a table that holds two sequences.

The scenarios of the other files are chosen for what is known to be hard; these for nothing at
all. (A clear beside a restore is how the rule `publish_above_live_from` was found.)
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.model.adding import Add, Remove
from tests.model.checker import Verdict
from tests.model.machine import Machine, Operation
from tests.model.reading import Read, SetPriority, Update
from tests.model.rules import Bounds
from tests.model.scenarios import EXPLORED, LARGE, holds
from tests.model.taking import Take
from tests.model.whole import Clear, Restore

# Sequences 1 and 2 are there, under identities 0 and 1; each call brings sequence `tag`.
CALLS: dict[str, Callable[[int], Operation]] = {
    "add": lambda tag: Add(2, tag, length=1),
    "add two rows": lambda tag: Add(2, tag, length=2),
    "add a duplicate": lambda tag: Add(0, tag, length=1),
    "replace": lambda tag: Add(0, tag, length=1, replace=True),
    "replace by two rows": lambda tag: Add(0, tag, length=2, replace=True),
    "remove": lambda tag: Remove(0),
    "clear": lambda tag: Clear(),
    "restore": lambda tag: Restore(((0, tag),)),
    "take": lambda tag: Take(),
    "take at validation": lambda tag: Take(at_validation=True),
    "read": lambda tag: Read(),
    "update": lambda tag: Update(),
    "set priority": lambda tag: SetPriority(),
}
BEFORE = (Add(0, 1, length=1), Add(1, 2, length=1))


@pytest.mark.parametrize("first", CALLS)
@pytest.mark.parametrize("slots", [2, 3])
def test_beside_every_other_call(first: str, slots: int) -> None:
    """``slots`` 2: the table is full, adds must eject; 3: there is a free slot and row."""
    bounds = Bounds(slots=slots, rows=slots + 1, maxlen=slots, crashes=1, interrupts=int(LARGE))
    names = list(CALLS)
    total = Verdict(f"{first}, beside each of {len(names)} calls, {slots} slots")
    for second in names[names.index(first) :]:
        scripts = ((CALLS[first](3),), (CALLS[second](4), Add(3, 5, length=1)))
        machine = Machine(f"{first} | {second}", *scripts, before=BEFORE, bounds=bounds)
        verdict = holds(machine)
        EXPLORED.remove(verdict)
        total.states += verdict.states
        total.steps += verdict.steps
    EXPLORED.append(total)
