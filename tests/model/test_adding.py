"""Add, eject, remove, replace, reclaim, validated read: the protocol, and what it forbids."""

from __future__ import annotations

from dataclasses import replace

from tests.model.adding import Add, Remove
from tests.model.machine import Machine, Operation
from tests.model.reading import Read, SetPriority
from tests.model.rules import PROTOCOL, Bounds
from tests.model.scenarios import LARGE, broken, holds
from tests.model.whole import Clear

TWO = Bounds(slots=2, rows=4, maxlen=4, crashes=2)
ONE_SLOT = Bounds(slots=1, rows=2, maxlen=2, crashes=1)
NO_FAULTS = replace(ONE_SLOT, crashes=0)


def short(identity: int, tag: int, *, over: bool = False) -> Add:
    """A sequence of one row; ``over``: replacing what has its identity."""
    return Add(identity, tag, length=1, replace=over)


# What must hold.


def test_two_writers_of_one_identity_and_a_reader() -> None:
    holds(
        Machine("add, add the same, read", (Add(0, 1),), (Add(0, 2),), (Read(),), bounds=TWO), 1000
    )


def test_adds_that_eject_under_a_reader() -> None:
    extra: tuple[Operation, ...] = (Read(),) if LARGE else ()
    scripts = ((Add(0, 1), Add(1, 2)), (Add(2, 3), *extra), (Read(),))
    holds(Machine("add, eject, read", *scripts, bounds=TWO), 30_000)


def test_remove_and_add_again_under_a_reader() -> None:
    scripts = ((Add(0, 1), Add(1, 2)), (Remove(0), Add(0, 3)), (Read(),))
    holds(Machine("add, remove, add again, read", *scripts, bounds=TWO), 30_000)


def test_replace_beside_other_writers_and_a_reader() -> None:
    scripts = ((short(0, 2, over=True),), (short(1, 3), short(2, 4)), (Read(),))
    machine = Machine("replace, eject, read", *scripts, before=(short(0, 1),), bounds=TWO)
    holds(machine, 10_000)


def test_two_replaces_of_one_identity() -> None:
    scripts = ((short(0, 2, over=True),), (short(0, 3, over=True),), (short(0, 4), Remove(0)))
    bounds = replace(TWO, interrupts=1 if LARGE else 0)
    holds(Machine("replace twice", *scripts, before=(short(0, 1),), bounds=bounds), 4_000)


def test_interrupts_give_everything_back() -> None:
    scripts = ((short(0, 1), short(1, 2)), (short(2, 3), Remove(0)))
    bounds = Bounds(slots=2, rows=2, maxlen=2, crashes=1 if LARGE else 0, interrupts=2)
    holds(Machine("interrupts", *scripts, bounds=bounds), 20_000)


def test_threads_of_one_process_and_interrupts() -> None:
    scripts = ((short(0, 1), short(2, 3)), (short(1, 2),))
    bounds = Bounds(slots=1, rows=1, maxlen=1, crashes=1, interrupts=2)
    holds(Machine("threads, interrupts", *scripts, threads_of=(0, 0), bounds=bounds), 5_000)


def test_notes_by_slot_would_do_for_recognising_ones_own() -> None:
    """One note per slot and process, replaced when any thread of it reserves the slot again."""
    rules = replace(PROTOCOL, own_by="slot")
    scripts = ((short(0, 1), short(2, 3)), (short(1, 2),))
    bounds = Bounds(slots=1, rows=1, maxlen=1, crashes=1, interrupts=2)
    machine = Machine("notes by slot", *scripts, rules=rules, threads_of=(0, 0), bounds=bounds)
    holds(machine, 5_000)


def test_recovery_may_free_in_vector_stores() -> None:
    """All generations, then all states: recovery is run again from wherever it was cut off."""
    rules = replace(PROTOCOL, rebuild_in_vectors=True)
    scripts = ((short(0, 2, over=True),), (short(2, 3), short(1, 4, over=True)), (short(3, 5),))
    before = (short(0, 1),)
    bounds = replace(TWO, slots=3, crashes=2 if LARGE else 1)
    holds(Machine("vector recovery", *scripts, before=before, rules=rules, bounds=bounds), 10_000)


# What must be found.


def test_found_state_before_generation() -> None:
    rules = replace(PROTOCOL, generation_before_free=False)
    scripts = ((Add(1, 2),), (Add(2, 3),), (Read(),))
    machine = Machine(
        "BAD: FREE, then generation + 1",
        *scripts,
        before=(Add(0, 1),),
        rules=rules,
        bounds=ONE_SLOT,
    )
    broken(machine, "torn window handed out: rows of sequences [1, 3]", "is KILLED")


def test_found_live_before_the_strategies_fields() -> None:
    rules = replace(PROTOCOL, fields_before_live=False)
    machine = Machine("BAD: LIVE, then the fields", (Add(0, 1),), rules=rules, bounds=ONE_SLOT)
    broken(machine, "LIVE without its own strategy fields", "commits 0, after")


def test_found_replace_by_eject_then_add() -> None:
    rules = replace(PROTOCOL, replace_keeps_old=False)
    scripts = ((Add(0, 2, replace=True),),)
    machine = Machine(
        "BAD: replace is eject, then add", *scripts, before=(Add(0, 1),), rules=rules, bounds=TWO
    )
    broken(machine, "lost: sequence 1", "replaces 0: reserves, after")


def test_found_replace_that_remembers_the_old_slot() -> None:
    rules = replace(PROTOCOL, replace_looks_again=False)
    scripts = ((short(0, 2, over=True),), (Remove(0), short(2, 3)))
    machine = Machine(
        "BAD: replace ejects the slot it knew",
        *scripts,
        before=(short(0, 1),),
        rules=rules,
        bounds=replace(TWO, crashes=0),
    )
    broken(machine, "lost: sequence 3", "removes 0", "commits 2", "commits 0")


def test_found_replace_that_waits_for_the_room_of_the_old() -> None:
    rules = replace(PROTOCOL, replace_may_give_up=False)
    bounds = Bounds(slots=1, rows=1, maxlen=1, crashes=0)
    scripts = ((short(0, 1), short(0, 2, over=True)),)
    machine = Machine("BAD: replace waits in a full table", *scripts, rules=rules, bounds=bounds)
    broken(machine, "stuck", "commits 0")


def test_found_a_living_owner_believed_dead() -> None:
    rules = replace(PROTOCOL, reclaim_needs_proof=False)
    scripts = ((Add(0, 1),), (Add(1, 2),), (Read(),))
    machine = Machine("BAD: reclaim by time-out", *scripts, rules=rules, bounds=NO_FAULTS)
    broken(machine, "P0 and P1 both live and own the same rows", "P1 adds 1: reserves")


def test_found_what_the_living_owner_then_does() -> None:
    """The harm itself, not its cause: late copies land in somebody else's committed rows."""
    rules = replace(PROTOCOL, reclaim_needs_proof=False)
    bounds = replace(NO_FAULTS, watch_rows=False)
    machine = Machine(
        "BAD: reclaim by time-out, late copy",
        (Add(0, 1),),
        (Add(1, 2),),
        rules=rules,
        bounds=bounds,
    )
    broken(machine, "LIVE with rows that are not its own", "P1 commits 1")


def test_found_commit_without_generation_check() -> None:
    """The check is a second line of defence: it needs a reservation lost before it bites.

    Two threads of one process: state and owner look alike, only the generation tells.
    """
    rules = replace(PROTOCOL, reclaim_needs_proof=False, commit_checks_generation=False)
    machine = Machine(
        "BAD: commit does not check the generation",
        (Add(0, 1),),
        (Add(1, 2),),
        rules=rules,
        threads_of=(0, 0),
        bounds=replace(NO_FAULTS, watch_rows=False),
    )
    broken(machine, "lost: sequence 1", "P1 adds 1: reserves", "P0 commits 0")


def test_found_identity_map_without_writing_slots() -> None:
    rules = replace(PROTOCOL, map_has_writing=False, commit_checks_identity=False)
    machine = Machine(
        "BAD: the map holds LIVE slots only",
        (Add(0, 1),),
        (Add(0, 2),),
        rules=rules,
        bounds=replace(TWO, crashes=0),
    )
    broken(machine, "two sequences with one identity: [0, 0]", "P0 commits 0", "P1 commits 0")


def test_found_commit_by_vector_store() -> None:
    rules = replace(PROTOCOL, commit_is_one_store=False)
    machine = Machine("BAD: commit is a vector store", (Add(0, 1),), rules=rules, bounds=ONE_SLOT)
    broken(machine, "LIVE without its own strategy fields", "in a vector store is KILLED")


def test_found_dirty_cleared_before_the_last_store() -> None:
    rules = replace(PROTOCOL, dirty_cleared_last=False)
    machine = Machine("BAD: dirty cleared too early", (Add(0, 1),), rules=rules, bounds=ONE_SLOT)
    broken(machine, "a derived word differs", "is KILLED")


def test_found_owner_stored_after_writing() -> None:
    rules = replace(PROTOCOL, owner_before_writing=False)
    machine = Machine("BAD: WRITING, then owner", (Add(0, 1),), rules=rules, bounds=ONE_SLOT)
    broken(machine, "leak: slot 0 stays reserved", "is KILLED")


def test_found_note_made_after_writing() -> None:
    rules = replace(PROTOCOL, note_before_state=False)
    bounds = replace(NO_FAULTS, interrupts=1)
    machine = Machine("BAD: WRITING, then the note", (Add(0, 1),), rules=rules, bounds=bounds)
    broken(machine, "leak: slot 0 stays reserved", "gets CTRL-C")


def test_found_own_reservation_recognised_by_generation() -> None:
    """An abort cut off between generation + 1 and FREE is not recognised the next time."""
    rules = replace(PROTOCOL, own_by="generation")
    bounds = replace(NO_FAULTS, interrupts=2)
    machine = Machine("BAD: abort by generation", (Add(0, 1),), rules=rules, bounds=bounds)
    broken(machine, "leak: slot 0 stays reserved", "aborts what it left open, after 3")


def test_found_own_reservation_recognised_by_either_generation() -> None:
    """Accepting the noted generation + 1 frees what a sibling thread has reserved since."""
    rules = replace(PROTOCOL, own_by="either")
    scripts = ((short(0, 1),), (short(1, 2),), (short(2, 3),))
    bounds = Bounds(slots=1, rows=1, maxlen=1, crashes=0, interrupts=1)
    machine = Machine(
        "BAD: abort by either generation",
        *scripts,
        rules=rules,
        threads_of=(0, 0, 2),
        bounds=bounds,
    )
    broken(machine, "both live and own the same rows", "P0 aborts")


def test_found_reading_without_validation() -> None:
    rules = replace(PROTOCOL, validate=False)
    machine = Machine(
        "BAD: a read is not validated",
        (Add(1, 2),),
        (Read(),),
        before=(Add(0, 1),),
        rules=rules,
        bounds=NO_FAULTS,
    )
    broken(machine, "handed out", "P1 picks slot 0", "P0 adds 1: reserves")


# Processes that do not know the strategies' classes.


def test_strangers_repair_the_index_and_leave_the_strategies_bit() -> None:
    scripts = ((Remove(0), Clear()), (short(2, 3), SetPriority()), (short(0, 4, over=True),))
    machine = Machine(
        "strangers",
        *scripts,
        before=(short(0, 1), short(1, 2)),
        strangers=(0,),
        bounds=Bounds(slots=3, rows=3, maxlen=3, crashes=2 if LARGE else 1),
    )
    holds(machine, 4_000)


def test_found_strangers_that_clear_the_whole_dirty_word() -> None:
    rules = replace(PROTOCOL, stranger_keeps_bit=False)
    machine = Machine(
        "BAD: a stranger clears the strategies' bit",
        (Remove(0),),
        (short(2, 3),),
        before=(short(0, 1),),
        strangers=(0,),
        rules=rules,
        bounds=NO_FAULTS,
    )
    broken(machine, "a derived word differs", "P0 removes 0")
