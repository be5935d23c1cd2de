"""Priorities from several processes at once, beside adds and ejections; and processes that die."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shmtable import (
    ArrayMemoryTable,
    LowestPriorityEjectionStrategy,
    PrioritizedSampleStrategy,
    UniformEjectionStrategy,
)
from shmtable.index import fields as f
from tests.multiprocess.recipe import Crew, link
from tests.strategies.chance import LEAST_P, draw
from tests.strategies.derived import wrong_with_derived
from tests.strategies.prioritized import EPSILON, MakeTable, agreement, narrow

MOST_STEPS = 12
Float64Array = npt.NDArray[np.float64]


def given(identity: int, length: int) -> Float64Array:
    """The priorities a sequence is added with: they tell which one it is."""
    return 1 + np.arange(length) / 16 + identity % 1000 / 1000


def updated(identities: Any, offsets: Any) -> Float64Array:
    """Those that its transitions are given by updates."""
    return np.asarray(3 + offsets / 16 + identities % 1000 / 1000, np.float64)


def add_many(table: ArrayMemoryTable, first: int, count: int | None) -> int:
    """Adds so many sequences, or until told to stop."""
    number = 0
    while not link().told() if count is None else number < count:
        identity = first + number
        length = 1 + identity * 7 % MOST_STEPS
        row = {"actions": np.full(length, identity % 1000)}
        table.add_sequence(identity, row, priority=given(identity, length))
        number += 1
    return number


def update_many(table: ArrayMemoryTable, least: int) -> tuple[int, int]:
    """Updates until told to stop: how many windows, and how many were still there."""
    asked = applied = 0
    while not link().told() or asked < least:
        steps = 1 + asked % 3
        points = table.sample(8, steps, timeout_s=60).points
        assert points is not None
        if asked % 80 == 0:
            link().tell(asked)
        offsets = points.offsets[:, None] + np.arange(steps)
        applied += table.update_priorities(points, updated(points.identities[:, None], offsets))
        asked += 8
    return asked, applied


def foreign(table: ArrayMemoryTable) -> tuple[list[str], dict[tuple[int, int], float]]:
    """Priorities that are neither as given nor as updated; and all of them by window."""
    core = table._core
    wrong, found = [], {}
    for slot in core.view.live_slots().tolist():
        identity, start, length = core.arrays.slots[slot, [f.IDENTITY, f.START, f.LENGTH]].tolist()
        own = core.sampler.arrays["priority"][start : start + length]
        new = updated(identity, np.arange(length))
        if not ((own == given(identity, length)) | (own == new)).all():
            wrong.append(f"sequence {identity} has {own}")
        found.update({(identity, offset): float(own[offset]) for offset in range(length)})
    return wrong, found


def test_two_add_a_third_updates_and_chances_are_exact(make_table: MakeTable) -> None:
    table = narrow(make_table, alpha=1.0, normalize="table")
    with Crew("spawn") as crew:
        for first in (0, 5000):
            crew.add(add_many, table, first, 150)
        updater = crew.add(update_many, table, 2000)
        crew.go()
        for _ in range(100):
            table.sample(16, 2, timeout_s=60)
        for member in crew.members[:2]:
            member.join()
        updater.tell("stop")
        _, _, (asked, applied) = crew.results()
    assert 0 < applied <= asked
    add_many(table, 9000, 10)  # that nobody has updated
    wrong, priority = foreign(table)
    assert wrong == [] and wrong_with_derived(table) == [] and table.check() == []
    assert len({value >= 3 for value in priority.values()}) == 2  # both sorts are there
    weights = {window: value + EPSILON for window, value in priority.items()}
    assert agreement(draw(table, 60_000, 1), weights) > LEAST_P


@pytest.mark.parametrize("lock", ["robust", "portable"])
def test_updates_never_reach_what_has_taken_the_room(make_table: MakeTable, lock: str) -> None:
    table = narrow(make_table, maxlen=100, ejector=UniformEjectionStrategy(), lock=lock)
    with Crew("fork") as crew:
        for first in (0, 1 << 20):
            crew.add(add_many, table, first, None)
        updaters = [crew.add(update_many, table, 1500) for _ in range(2)]
        crew.go()
        for member in updaters:
            member.tell("stop")
        for member in updaters:
            member.join()
        for member in crew.members[:2]:
            member.tell("stop")
        results = crew.results()
    assert sum(results[:2]) > 60  # the table has been renewed more than once
    wrong, _ = foreign(table)
    assert wrong == [] and wrong_with_derived(table) == []
    assert table.stats().recoveries == 0


@pytest.mark.parametrize("lock", ["robust", "portable"])
def test_killed_in_the_middle_of_updates(make_table: MakeTable, lock: str) -> None:
    table = narrow(
        make_table,
        maxlen=100,
        normalize="table",
        ejector=LowestPriorityEjectionStrategy(),
        lock=lock,
    )
    with Crew("fork") as crew:
        adder = crew.start(add_many, table, 0, None)
        assert adder.hear() == "ready"
        for number in range(8):
            victim = crew.start(update_many, table, 1 << 40)
            assert victim.hear() == "ready"
            for _ in range(1 + number % 3):
                victim.hear()
            victim.kill()
            victim.join()
            crew.dismiss(victim)
            wrong, _ = table._core.guard.run(foreign, table)
            assert wrong == [] and wrong_with_derived(table) == []
            assert len(table.sample(8, 1)["actions"]) == 8
        adder.tell("stop")
        adder.join()
    assert table.check() == []


def set_alpha(table: ArrayMemoryTable) -> None:
    """Changes it for ever, and draws with it."""
    assert isinstance(table.sampler, PrioritizedSampleStrategy)
    for number in range(1 << 40):
        table.sampler.alpha = 0.5 + number % 2
        table.sample(4, 1)
        if number % 10 == 0:
            link().tell(number)


def test_killed_while_all_leaves_are_made_anew(make_table: MakeTable) -> None:
    table = narrow(make_table, maxlen=4000, alpha=0.5, normalize="table")
    for identity in range(300):
        table.add_sequence(
            identity, {"actions": np.zeros(12, np.int32)}, priority=given(identity, 12)
        )
    sampler = table.sampler
    assert isinstance(sampler, PrioritizedSampleStrategy)
    with Crew("fork") as crew:
        for number in range(8):
            victim = crew.start(set_alpha, table)
            assert victim.hear() == "ready"
            for _ in range(1 + number % 3):
                victim.hear()
            victim.kill()
            victim.join()
            crew.dismiss(victim)
            assert sampler.alpha in (0.5, 1.5)
            wrong, priority = foreign(table)
            assert wrong == [] and wrong_with_derived(table) == []
    weights = {w: (value + EPSILON) ** sampler.alpha for w, value in priority.items()}
    by_identity = {i: sum(w for (j, _), w in weights.items() if i == j) for i in range(0, 300, 10)}
    drawn = [(i, 0) for i, _ in draw(table, 40_000, 1) if i in by_identity]
    assert agreement(drawn, {(i, 0): w for i, w in by_identity.items()}) > LEAST_P
