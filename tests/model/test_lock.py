"""The robust lock under kills and Ctrl-C, and the bell that wakes the waiting."""

from __future__ import annotations

from dataclasses import replace

from tests.model.bell import BellModel, BellRules
from tests.model.lock import LockModel, LockRules
from tests.model.scenarios import LARGE, broken, holds

LOCK = LockRules()
BELL = BellRules()


def test_lock_with_kills_and_an_interrupt() -> None:
    callers = 3 if LARGE else 2
    holds(LockModel("lock, kills, one Ctrl-C", LOCK, callers, crashes=2, interrupts=1), 1000)


def test_lock_with_many_interrupts_is_found_again() -> None:
    """Two Ctrl-C inside one `finally` orphan it until its owner's next call, which adopts it."""
    rules = replace(LOCK, comes_back=True)
    holds(LockModel("lock, three Ctrl-C", rules, crashes=1, interrupts=3), 3000)


def test_consistent_on_the_way_out_is_what_counts() -> None:
    """With `settles`, doing it after the rebuild instead of before it would do as well."""
    rules = replace(LOCK, consistent_first=False)
    holds(LockModel("lock, consistent late", rules, crashes=2, interrupts=2 - 1), 1000)


def test_found_lock_call_before_try() -> None:
    rules = replace(LOCK, lock_inside_try=False)
    broken(LockModel("BAD: lock(); try:", rules), "stuck", "gets CTRL-C")


def test_found_a_single_unlock() -> None:
    rules = replace(LOCK, unlock_twice=False)
    broken(LockModel("BAD: finally: unlock()", rules), "stuck", "gets CTRL-C")


def test_found_ctrl_c_between_eownerdead_and_consistent() -> None:
    """The lock call has returned EOWNERDEAD, and the next bytecode is never reached."""
    rules = replace(LOCK, settles=False)
    model = LockModel("BAD: unlock without consistent", rules)
    broken(model, "ENOTRECOVERABLE", "lock: EOWNERDEAD", "gets CTRL-C", "unlocks")


def test_found_repair_only_when_the_lock_says_so() -> None:
    rules = replace(LOCK, dirty_decides=False)
    broken(LockModel("BAD: EOWNERDEAD decides", rules), "half-changed table", "gets CTRL-C")


def test_found_orphan_not_adopted() -> None:
    rules = replace(LOCK, comes_back=True, adopt_orphan=False)
    broken(LockModel("BAD: EDEADLK is an error", rules, interrupts=3), "stuck", "gets CTRL-C")


def test_bell_with_a_killed_ringer() -> None:
    holds(BellModel("bell, killed ringer", BELL, waiters=3, crashes=2), 500)


def test_without_kills_no_wake_up_is_lost() -> None:
    """The time limit is for kills alone: without them the futex protocol needs none."""
    rules = replace(BELL, sleep_ends=False)
    holds(BellModel("bell, endless sleep, no kills", rules, waiters=3, crashes=0), 100)


def test_found_endless_sleep() -> None:
    rules = replace(BELL, sleep_ends=False)
    broken(BellModel("BAD: endless sleep", rules), "stuck", "R is KILLED before it wakes")


def test_found_bell_read_outside_the_section_that_looked() -> None:
    rules = replace(BELL, sleep_ends=False, seen_under_lock=False)
    model = BellModel("BAD: bell read after unlock", rules, crashes=0)
    broken(model, "stuck", "reads the bell")


def test_found_sleep_that_does_not_compare() -> None:
    rules = replace(BELL, sleep_ends=False, compares=False)
    broken(BellModel("BAD: sleeps unconditionally", rules, crashes=0), "stuck", "falls asleep")
