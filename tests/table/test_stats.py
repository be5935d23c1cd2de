"""What ``stats`` counts, and whom it names."""

from __future__ import annotations

import threading

import pytest

from shmtable import MinSize, ProcessStats, SampleToInsertRatio, WaitTimeoutError
from tests.multiprocess.recipe import Crew, link
from tests.tables import small_sequence


def test_transitions_in_and_out_and_the_replay_ratio(make_table) -> None:
    table = make_table(maxlen=100)
    assert table.stats().replay_ratio == 0
    for identity in range(8):
        table.add_sequence(identity, small_sequence(identity, 20))
    table.sample(10, 4)
    table.sample(5, 8)
    stats = table.stats()
    assert (stats.transitions_added, stats.transitions_removed) == (160, 60)
    assert (stats.windows_sampled, stats.transitions_sampled) == (15, 80)
    assert stats.replay_ratio == 0.5 and stats.fill == 1.0


def test_the_age_of_the_oldest_is_what_was_added_since(make_table) -> None:
    table = make_table(maxlen=100)
    assert table.stats().oldest_age_transitions == 0
    for identity in range(8):
        table.add_sequence(identity, small_sequence(identity, 20))
    assert table.stats().oldest_age_transitions == 80
    table.remove(3)
    assert table.stats().oldest_age_transitions == 60
    table.clear()
    assert table.stats().oldest_age_transitions == 0


def test_the_limiter_says_what_it_holds_back_and_why(make_table) -> None:
    table = make_table(limiter=SampleToInsertRatio(1.0, min_size=20, error_buffer=40))
    stats = table.stats()
    assert stats.limiter == repr(table.limiter)
    assert stats.adds_blocked == "" and "holds 0 of the 20 transitions" in stats.samples_blocked
    for identity in range(3):
        table.add_sequence(identity, small_sequence(identity, 20))
    stats = table.stats()
    assert "would be 80 transitions, at most 60" in stats.adds_blocked
    assert stats.samples_blocked == ""
    table.limiter = None
    stats = table.stats()
    assert (stats.limiter, stats.adds_blocked, stats.samples_blocked) == ("", "", "")


def test_waiting_is_counted_for_the_side_that_waits(make_table) -> None:
    table = make_table(limiter=MinSize(30))
    with pytest.raises(WaitTimeoutError):
        table.sample(1, 4, timeout_s=0.3)
    stats = table.stats()
    assert 0.1 <= stats.samples_waited_s <= 10 and stats.adds_waited_s == 0
    assert stats == table.stats()


def test_finding_the_lock_taken_is_counted(make_table) -> None:
    table = make_table()
    assert table.stats().lock_waits == 0
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        leave.wait(60)

    holder = threading.Thread(target=lambda: table._core.guard.run(hold))
    holder.start()
    inside.wait(60)
    waiting = threading.Thread(target=table.check)
    waiting.start()
    waiting.join(0.2)
    leave.set()
    holder.join()
    waiting.join()
    stats = table.stats()
    assert stats.lock_waits >= 1 and stats.lock_waited_s >= 0.1


def add_and_stay(table, first: int) -> None:
    for identity in range(first, first + 3):
        table.add_sequence(identity, small_sequence(identity, 10))
    if first:
        table.sample(1, 2)
    link().tell("added")
    link().hear()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_every_process_is_named_with_what_it_did_and_whether_it_lives(make_table, method) -> None:
    table = make_table()
    with Crew(method) as crew:
        victim, steady = crew.add(add_and_stay, table, 0), crew.add(add_and_stay, table, 100)
        crew.go()
        assert victim.hear() == steady.hear() == "added"
        victim.kill()
        victim.join()
        known = {entry.pid: entry for entry in table.stats().processes}
        dead, alive = known[victim.pid], known[steady.pid]
        steady.tell("go on")
        crew.results()
    assert isinstance(dead, ProcessStats) and (dead.alive, alive.alive) == (False, True)
    assert dead.sequences_added == alive.sequences_added == 3
    assert dead.transitions_added == 30
    assert dead.added_s_ago is not None and 0 <= dead.added_s_ago <= dead.joined_s_ago
    assert dead.sampled_s_ago is None and alive.sampled_s_ago is not None
