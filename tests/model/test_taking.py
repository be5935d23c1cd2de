"""Taking a sequence out of the table: by nobody twice, lost by nobody."""

from __future__ import annotations

from dataclasses import replace

from tests.model.adding import Add, Remove
from tests.model.machine import Machine
from tests.model.reading import Read, Update
from tests.model.rules import PROTOCOL, Bounds
from tests.model.scenarios import LARGE, broken, holds
from tests.model.taking import Take
from tests.model.whole import Clear

BOUNDS = Bounds(slots=2, rows=2, maxlen=2, crashes=1)
NO_FAULTS = replace(BOUNDS, crashes=0)
LATER = Take(at_validation=True)


def short(identity: int, tag: int, *, over: bool = False) -> Add:
    return Add(identity, tag, length=1, replace=over)


FULL = (short(0, 1), short(1, 2))


# What must hold.


def test_two_takers_a_writer_and_kills() -> None:
    scripts = ((short(2, 3),), (Take(), Take()), (Take(),))
    machine = Machine("take, take, add", *scripts, before=FULL, bounds=replace(BOUNDS, crashes=2))
    holds(machine, 10_000)


def test_a_taker_a_clear_and_interrupts() -> None:
    scripts = ((Take(), short(2, 3)), (Clear(), Take()))
    bounds = replace(BOUNDS, interrupts=2, crashes=2 if LARGE else 1)
    holds(Machine("take, clear, interrupts", *scripts, before=FULL, bounds=bounds), 8_000)


def test_a_taker_a_replace_and_a_reader() -> None:
    scripts = ((short(0, 3, over=True),), (Take(),), (Read(), Remove(0)))
    bounds = Bounds(slots=3, rows=3, maxlen=3, crashes=2, interrupts=1 if LARGE else 0)
    machine = Machine("take, replace, read", *scripts, before=FULL, bounds=bounds)
    holds(machine, 5_000)


def test_using_up_at_validation_would_do_without_taken() -> None:
    """The simpler way: no owner, no state of its own, nothing for recovery to give back."""
    scripts = ((short(2, 3),), (LATER, LATER), (LATER,))
    bounds = replace(BOUNDS, crashes=2, interrupts=1 if LARGE else 0)
    holds(Machine("take at validation", *scripts, before=FULL, bounds=bounds), 5_000)


def test_using_up_at_validation_beside_update_and_clear() -> None:
    scripts = ((Update(), short(2, 3)), (LATER,), (Clear(), LATER))
    machine = Machine("take at validation, update, clear", *scripts, before=FULL, bounds=BOUNDS)
    holds(machine, 5_000)


# What must be found.


def test_found_take_that_frees_before_it_has_copied() -> None:
    rules = replace(PROTOCOL, take_frees_last=False)
    machine = Machine("BAD: take frees first", (Take(),), before=FULL, rules=rules, bounds=BOUNDS)
    broken(machine, "lost: sequence 1", "takes slot 0, after")


def test_found_take_that_frees_before_it_counts() -> None:
    rules = replace(PROTOCOL, take_counts_first=False)
    machine = Machine(
        "BAD: take frees, then counts", (Take(),), before=FULL, rules=rules, bounds=BOUNDS
    )
    broken(machine, "1 sequences were used up and 0 uses counted", "hands it out, after")


def test_found_using_up_in_a_section_of_its_own() -> None:
    """Counted where it is validated and removed afterwards: in between, others have it too."""
    rules = replace(PROTOCOL, used_up_at_once=False)
    scripts = ((LATER,), (LATER,))
    machine = Machine(
        "BAD: validate, then use up", *scripts, before=FULL, rules=rules, bounds=NO_FAULTS
    )
    broken(machine, "sequence 1 is handed out twice", "P0 counts it", "P1 hands it out")


def test_found_take_that_claims_nothing() -> None:
    rules = replace(PROTOCOL, take_exclusive=False)
    scripts = ((Take(),), (Take(),))
    machine = Machine(
        "BAD: take without TAKEN", *scripts, before=FULL, rules=rules, bounds=NO_FAULTS
    )
    broken(machine, "sequence 1 is handed out twice", "P0 hands it out", "P1 hands it out")


def test_found_dead_takers_swept_by_recovery_only() -> None:
    """A taker that dies while it copies leaves no dirty flag, so no recovery runs."""
    rules = replace(PROTOCOL, sweep_returns_taken=False)
    machine = Machine(
        "BAD: TAKEN of the dead waits for a rebuild",
        (Take(),),
        (short(1, 2),),
        before=(short(0, 1),),
        rules=rules,
        bounds=Bounds(slots=1, rows=1, maxlen=1, crashes=1),
    )
    broken(machine, "stuck", "P0 takes slot 0", "P0 is KILLED")


def test_found_taken_that_returns_after_a_clear() -> None:
    """`live_from` is finished before TAKEN goes back to LIVE: invisible, and in the way."""
    rules = replace(PROTOCOL, returned_tests_live_from=False)
    scripts = ((Take(),), (Clear(), Take()))
    machine = Machine(
        "BAD: TAKEN returns below live_from", *scripts, before=FULL, rules=rules, bounds=BOUNDS
    )
    broken(machine, "LIVE below live_from", "P1 clears", "is KILLED")


def test_found_taken_that_returns_without_a_priority() -> None:
    """Recovery has zeroed its leaf as that of a slot that is not LIVE."""
    rules = replace(PROTOCOL, returned_gets_highest=False)
    scripts = ((Take(),), (short(2, 3),))
    machine = Machine(
        "BAD: TAKEN returns with leaf 0",
        *scripts,
        before=FULL,
        rules=rules,
        bounds=replace(BOUNDS, crashes=2),
    )
    broken(machine, "LIVE without its own strategy fields", "takes slot 0", "rebuilds")


def test_found_taken_beside_its_own_replacement() -> None:
    rules = replace(PROTOCOL, take_skips_replaced=False)
    scripts = ((short(0, 2, over=True),), (Take(),))
    machine = Machine(
        "BAD: take of what is being replaced",
        *scripts,
        before=(short(0, 1),),
        rules=rules,
        bounds=BOUNDS,
    )
    broken(machine, "ideally [2]", "P1 takes slot 0", "P0 commits 0")


def test_found_taken_slots_not_noted() -> None:
    rules = replace(PROTOCOL, notes_all_states=False)
    machine = Machine(
        "BAD: no note of TAKEN slots",
        (Take(),),
        before=FULL,
        rules=rules,
        bounds=replace(NO_FAULTS, interrupts=1),
    )
    broken(machine, "leak: slot 0 stays reserved", "gets CTRL-C")
