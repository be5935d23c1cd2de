"""Validated reads beside `update`, priorities, and limiters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.model.adding import Add, Remove
from tests.model.machine import Machine
from tests.model.reading import Read, SetPriority, Update
from tests.model.rules import PROTOCOL, Bounds
from tests.model.scenarios import LARGE, broken, holds

BOUNDS = Bounds(slots=2, rows=4, maxlen=4, crashes=1)
NO_FAULTS = replace(BOUNDS, crashes=0)
ONE_SLOT = Bounds(slots=1, rows=2, maxlen=2, crashes=1)
BEFORE = (Add(0, 1),)


def short(identity: int, tag: int) -> Add:
    return Add(identity, tag, length=1)


# update: written in place, under the lock, between two versions.


def test_update_under_readers() -> None:
    scripts = ((Update(), Update()), (Read(),), (Read(), Add(1, 2)))
    bounds = replace(BOUNDS, crashes=2, interrupts=1 if LARGE else 0)
    holds(Machine("update, update, read, read", *scripts, before=BEFORE, bounds=bounds), 5_000)


def test_a_single_increment_before_the_rows_would_do() -> None:
    """Picking and validating are done under the lock, so nobody ever sees a half-done update."""
    rules = replace(PROTOCOL, version_marks="before")
    scripts = ((Update(), Update()), (Read(),), (Read(), Add(1, 2)))
    bounds = replace(BOUNDS, crashes=2)
    machine = Machine("update, one increment", *scripts, before=BEFORE, rules=rules, bounds=bounds)
    holds(machine, 5_000)


def test_a_version_of_the_slots_own_would_do() -> None:
    rules = replace(PROTOCOL, version_marks="around")
    scripts = ((Update(), Update()), (Read(),), (Read(), Add(1, 2)))
    bounds = replace(BOUNDS, crashes=2)
    machine = Machine("update, odd and even", *scripts, before=BEFORE, rules=rules, bounds=bounds)
    holds(machine, 5_000)


def test_found_update_that_raises_the_tables_number_last() -> None:
    """Killed in between, it leaves a slot that nobody may ever read again."""
    rules = replace(PROTOCOL, counter_first=False)
    machine = Machine(
        "BAD: version, rows, number",
        (Update(),),
        (Read(),),
        before=BEFORE,
        rules=rules,
        bounds=ONE_SLOT,
    )
    broken(machine, "written by update 1, which is still to come", "P0 updates slot 0")


@pytest.mark.parametrize("marks", ["after", "none"])
def test_found_update_without_a_version_before_the_rows(marks: str) -> None:
    rules = replace(PROTOCOL, version_marks=marks)
    machine = Machine(
        f"BAD: version changes {marks}",
        (Update(),),
        (Read(),),
        before=BEFORE,
        rules=rules,
        bounds=ONE_SLOT,
    )
    broken(machine, "torn window handed out", "P0 updates slot 0")


# Windows beside one that was lost: proved, and proved once more from there on.


def test_windows_beside_lost_ones() -> None:
    scripts = ((Update(), Remove(0), short(2, 3)), (Read(among=True),), (Update(),))
    bounds = replace(BOUNDS, crashes=2)
    holds(Machine("reads among others", *scripts, before=BEFORE, bounds=bounds), 5_000)


def test_found_a_window_that_was_written_beside_a_lost_one() -> None:
    rules = replace(PROTOCOL, renewal_checks_versions=False)
    scripts = ((Update(),), (Read(among=True),))
    machine = Machine(
        "BAD: renewed by generation", *scripts, before=BEFORE, rules=rules, bounds=NO_FAULTS
    )
    broken(machine, "torn window handed out", "P1 keeps it beside a lost one")


# The word that saves readers a look at generations.


def test_readers_that_look_at_generations_after_an_exit_only() -> None:
    scripts = ((Remove(0), short(2, 3)), (Read(),), (Read(), short(1, 2)))
    bounds = replace(BOUNDS, rows=2, maxlen=2, crashes=2)
    holds(Machine("remove, add, reads", *scripts, before=BEFORE, bounds=bounds), 3_000)


@pytest.mark.parametrize("when", ["after", "never"])
def test_found_an_exit_that_nobody_counts(when: str) -> None:
    """Counted after, it is lost when its process is killed in between."""
    rules = replace(PROTOCOL, exits_rise=when)
    scripts = ((Remove(0),), (Read(),), (Add(1, 2),))
    machine = Machine(f"BAD: exits rise {when}", *scripts, before=BEFORE, rules=rules)
    broken(machine, "a window of another sequence", "P0 removes 0")


# Priorities.


def test_priorities_of_sequences_that_come_and_go() -> None:
    scripts = ((SetPriority(), SetPriority()), (Remove(0), short(2, 3)), (SetPriority(),))
    bounds = Bounds(slots=2, rows=2, maxlen=2, crashes=2 if LARGE else 1)
    before = (short(0, 1), short(1, 2))
    holds(Machine("priorities, remove, add", *scripts, before=before, bounds=bounds), 3_000)


def test_found_a_priority_for_the_slots_next_sequence() -> None:
    rules = replace(PROTOCOL, priority_checks_generation=False)
    scripts = ((SetPriority(),), (Add(1, 2),))
    machine = Machine(
        "BAD: stale priorities",
        *scripts,
        before=BEFORE,
        rules=rules,
        bounds=replace(ONE_SLOT, crashes=0),
    )
    broken(machine, "LIVE without its own strategy fields", "P0 sets a priority")


# Limiters: at most `lead` steps more than samples, at most `per_step` samples a step.


def test_limiter_with_writers_readers_and_kills() -> None:
    scripts = ((short(0, 1), short(1, 2)), (short(2, 3), Read(count=True)), (Read(count=True),))
    bounds = replace(BOUNDS, slots=3, lead=1, per_step=1, crashes=3 if LARGE else 2)
    holds(Machine("limiter, add, add, sample", *scripts, bounds=bounds), 3_000)


def test_limiter_with_two_writers_two_readers_and_a_kill() -> None:
    sample = (Read(count=True),)
    scripts = ((short(0, 1),), (short(1, 2),), sample, sample)
    bounds = replace(BOUNDS, slots=3, lead=2, per_step=1, crashes=2 if LARGE else 1)
    machine = Machine("limiter, two and two", *scripts, before=(short(2, 3),), bounds=bounds)
    holds(machine, 5_000)


def test_found_limiter_that_counts_samples_when_they_are_picked() -> None:
    """What is drawn again, or never handed out, has let a writer go on."""
    rules = replace(PROTOCOL, samples_counted_at_validation=False)
    scripts = ((short(1, 2),), (Read(count=True),))
    machine = Machine(
        "BAD: samples counted at pick",
        *scripts,
        before=(short(0, 1),),
        rules=rules,
        bounds=replace(NO_FAULTS, lead=1),
    )
    broken(machine, "the limiter let 2 steps in, 1 ahead allowed", "P1 picks slot 0")


def test_found_limiter_that_sees_committed_steps_only() -> None:
    rules = replace(PROTOCOL, limiter_counts_writing=False)
    machine = Machine(
        "BAD: limiter does not count WRITING",
        (Add(0, 1),),
        (Add(1, 2),),
        rules=rules,
        bounds=replace(NO_FAULTS, lead=2),
    )
    broken(machine, "the limiter let 4 steps in, 2 ahead allowed")


def test_found_limiter_whose_writing_part_is_not_derived() -> None:
    rules = replace(PROTOCOL, writing_is_derived=False)
    machine = Machine(
        "BAD: a dead writer keeps its share",
        (Add(0, 1),),
        (Add(1, 2),),
        rules=rules,
        bounds=replace(BOUNDS, lead=2),
    )
    broken(machine, "2 steps count as being written, it is 0", "is KILLED")


def test_found_limiter_that_admits_samples_when_they_are_picked() -> None:
    """Between pick and count any number of readers see the same gap."""
    rules = replace(PROTOCOL, samples_admitted_at_validation=False)
    scripts = ((Read(count=True),), (Read(count=True),))
    machine = Machine(
        "BAD: samples admitted at pick",
        *scripts,
        before=(short(0, 1),),
        rules=rules,
        bounds=replace(NO_FAULTS, per_step=1),
    )
    broken(machine, "the limiter let 2 samples out of 1 steps", "P0 validates", "P1 validates")


def test_found_step_total_raised_before_live() -> None:
    rules = replace(PROTOCOL, total_after_live=False)
    machine = Machine("BAD: step total, then LIVE", (Add(0, 1),), rules=rules, bounds=ONE_SLOT)
    broken(machine, "step total 2, but 0 steps were committed", "P0 commits 0, after")


def test_found_step_total_recovered_from_slots_never_committed() -> None:
    rules = replace(PROTOCOL, steps_of_committed_only=False)
    machine = Machine("BAD: step total from every slot", (Add(0, 1),), rules=rules, bounds=ONE_SLOT)
    broken(machine, "step total 2, but 0 steps were committed", "P0 commits 0, after")
