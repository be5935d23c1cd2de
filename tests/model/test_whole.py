"""Clear and restore: all or nothing, whatever is being written, taken or killed meanwhile."""

from __future__ import annotations

from dataclasses import replace

from tests.model.adding import Add, Remove
from tests.model.machine import Machine
from tests.model.reading import Read
from tests.model.rules import PROTOCOL, Bounds
from tests.model.scenarios import LARGE, broken, holds
from tests.model.taking import Take
from tests.model.whole import Clear, Restore

BOUNDS = Bounds(slots=3, rows=3, maxlen=3, crashes=1)
NO_FAULTS = replace(BOUNDS, crashes=0)
ONE = Restore(((0, 5),))
TWO = Restore(((0, 5), (1, 6)))


def short(identity: int, tag: int, *, over: bool = False) -> Add:
    return Add(identity, tag, length=1, replace=over)


# What must hold.


def test_clear_beside_a_writer_and_a_reader() -> None:
    scripts = ((short(2, 3),), (Clear(), short(0, 4)), (Read(),))
    machine = Machine(
        "clear, add, read",
        *scripts,
        before=(short(0, 1), short(1, 2)),
        bounds=replace(BOUNDS, crashes=2),
    )
    holds(machine, 5_000)


def test_clear_in_several_sections() -> None:
    """Not the protocol's way, but it would do: readers and pickers test order >= live_from."""
    rules = replace(PROTOCOL, clear_in_one_section=False)
    scripts = ((short(0, 3), Read()), (Clear(),), (Take(),))
    machine = Machine(
        "clear by and by, add, take",
        *scripts,
        before=(short(0, 1), short(1, 2)),
        rules=rules,
        bounds=replace(BOUNDS, crashes=2, interrupts=1 if LARGE else 0),
    )
    holds(machine, 5_000)


def test_restore_beside_a_writer_of_the_same_identity() -> None:
    scripts = ((short(0, 3),), (TWO,), (Read(),))
    machine = Machine(
        "restore two, add, read", *scripts, bounds=replace(BOUNDS, slots=4, rows=4, crashes=2)
    )
    holds(machine, 5_000)


def test_restore_over_content_and_a_replace() -> None:
    scripts = ((short(0, 3, over=True),), (ONE,), (Read(),))
    machine = Machine(
        "restore, replace, read", *scripts, before=(short(0, 1),), bounds=replace(BOUNDS, crashes=2)
    )
    holds(machine, 10_000)


def test_restore_after_clear_and_interrupts() -> None:
    scripts = ((ONE, short(1, 3)), (Clear(),))
    machine = Machine(
        "restore, clear, interrupts",
        *scripts,
        before=(short(0, 1),),
        bounds=replace(BOUNDS, interrupts=2),
    )
    holds(machine, 5_000)


def test_two_restores_at_once() -> None:
    scripts = ((ONE,), (Restore(((0, 6),)),), (short(0, 3),))
    machine = Machine("restore twice, add", *scripts, bounds=replace(BOUNDS, crashes=1))
    holds(machine, 3_000)


# What must be found.


def test_found_live_from_not_honoured_by_recovery() -> None:
    rules = replace(PROTOCOL, honour_live_from=False)
    scripts = ((Clear(),), (Read(),))
    machine = Machine(
        "BAD: recovery does not test order >= live_from",
        *scripts,
        before=(short(0, 1), short(1, 2)),
        rules=rules,
        bounds=BOUNDS,
    )
    broken(machine, "a sequence that is not in the table shows: [1", "P0 clears, after")


def test_found_live_from_not_honoured_by_readers() -> None:
    rules = replace(PROTOCOL, honour_live_from=False, clear_in_one_section=False)
    machine = Machine(
        "BAD: readers do not test order >= live_from",
        (Clear(),),
        (Read(),),
        before=(short(0, 1), short(1, 2)),
        rules=rules,
        bounds=NO_FAULTS,
    )
    broken(machine, "a sequence that is not in the table shows: [1, 2]", "to sweep later")


def test_found_clear_that_frees_what_is_being_written() -> None:
    rules = replace(PROTOCOL, clear_spares_writing=False)
    scripts = ((short(0, 1),), (Clear(), short(1, 2)))
    machine = Machine("BAD: clear frees WRITING slots", *scripts, rules=rules, bounds=NO_FAULTS)
    broken(machine, "both live and own the same rows", "P1 clears")


def test_found_restore_that_publishes_one_by_one() -> None:
    rules = replace(PROTOCOL, restore_at_once=False)
    machine = Machine(
        "BAD: restore publishes one by one",
        (TWO,),
        before=(short(0, 1),),
        rules=rules,
        bounds=BOUNDS,
    )
    broken(machine, "lost: sequence 6", "publishes what it loaded, after")


def test_found_publish_at_left_from_an_earlier_restore() -> None:
    """A slot's publish_at outlives its sequence: it must be reset before LOADED."""
    rules = replace(PROTOCOL, publish_at_reset=False)
    scripts = ((ONE, Remove(0), Restore(((0, 6), (1, 7)))),)
    machine = Machine("BAD: stale publish_at", *scripts, rules=rules, bounds=BOUNDS)
    broken(machine, "not in the table shows: [6]", "P0 removes 0", "is KILLED")


def test_found_publish_at_equal_to_what_a_clear_left() -> None:
    """clear, then restore with no add between: next_order is live_from already."""
    rules = replace(PROTOCOL, publish_above_live_from=False)
    scripts = ((Clear(), ONE),)
    machine = Machine(
        "BAD: publish_at = next_order", *scripts, before=(short(0, 1),), rules=rules, bounds=BOUNDS
    )
    broken(machine, "not in the table shows: [5]", "P0 clears", "publishes what it loaded, after")


def test_found_next_order_raised_after_publish_at() -> None:
    """A clear in between stores the very number that an interrupted restore has marked."""
    rules = replace(PROTOCOL, restore_raises_order_first=False, publish_above_live_from=False)
    scripts = ((ONE,), (Clear(), Remove(1)))
    machine = Machine(
        "BAD: publish_at, then next_order",
        *scripts,
        before=(short(1, 1),),
        rules=rules,
        bounds=replace(BOUNDS, interrupts=1, crashes=1),
    )
    broken(machine, "not in the table shows: [5]")


def test_found_strategies_fields_stored_while_loading() -> None:
    """Anybody's recovery zeroes the leaves of slots that are not LIVE."""
    rules = replace(PROTOCOL, loaded_fields_at_publish=False)
    machine = Machine(
        "BAD: fields stored at load", (ONE,), (short(1, 1),), rules=rules, bounds=BOUNDS
    )
    broken(machine, "LIVE without its own strategy fields", "finds dirty, rebuilds", "publishes")


def test_found_commit_of_an_identity_restored_meanwhile() -> None:
    """LOADED slots take no identity, so commit must look again."""
    rules = replace(PROTOCOL, commit_checks_identity=False)
    machine = Machine(
        "BAD: commit does not look again", (short(0, 1),), (ONE,), rules=rules, bounds=NO_FAULTS
    )
    broken(machine, "two sequences with one identity", "publishes what it loaded", "P0 commits 0")


def test_found_loaded_slots_not_noted() -> None:
    rules = replace(PROTOCOL, notes_all_states=False)
    machine = Machine(
        "BAD: no note of LOADED slots", (ONE,), rules=rules, bounds=replace(NO_FAULTS, interrupts=1)
    )
    broken(machine, "leak: slot 0 stays reserved", "gets CTRL-C")
