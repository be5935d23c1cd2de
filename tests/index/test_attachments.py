"""Who has the table open: entries taken, given back, and taken over."""

from __future__ import annotations

import gc
import os
import re
from typing import Any

import pytest

from shmtable.index import Attachments
from shmtable.index import attachments as module
from shmtable.index import fields as f
from shmtable.shm import process
from tests.index.worlds import World


class Crowd:
    """Attachments of one table, each in a process of its own, some of them dead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World()
        self.dead: set[int] = set()
        self.pid = os.getpid()
        self.members: list[Attachments] = []
        monkeypatch.setattr(process, "current", lambda: process.ProcessId(self.pid, 77))
        monkeypatch.setattr(process, "is_gone", lambda pid, start: pid in self.dead)

    def join(self, pid: int) -> Attachments:
        self.pid = pid
        attachments = Attachments(self.world.words, self.world.arrays.attachment_words)
        attachments.join_locked()
        self.members.append(attachments)
        return attachments


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Crowd:
    return Crowd(monkeypatch)


def listed(attachments: Attachments) -> list[tuple[int, int]]:
    return [(entry.number, entry.pid) for entry in attachments.all()]


def test_numbers_are_never_given_twice(crowd: Crowd) -> None:
    first = crowd.join(10)
    assert first.join_locked() == 1
    first.leave()
    assert crowd.join(11).number == 2
    assert crowd.world.words[f.NEXT_ATTACHMENT] == 3


def test_everybody_sees_everybody(crowd: Crowd) -> None:
    first, second, third = (crowd.join(pid) for pid in (10, 11, 12))
    assert listed(first) == listed(third) == [(0, 10), (1, 11), (2, 12)]
    assert [entry.pid for entry in second.others()] == [10, 12]


def test_an_entry_given_back_is_gone_and_used_again(crowd: Crowd) -> None:
    first, second = crowd.join(10), crowd.join(11)
    crowd.pid = 10
    first.leave()
    first.leave()
    assert listed(second) == [(1, 11)]
    crowd.join(12)
    assert listed(second) == [(1, 11), (2, 12)]


def test_who_is_dropped_has_left(crowd: Crowd) -> None:
    first = crowd.join(10)
    crowd.join(10)
    assert listed(first) == [(0, 10), (1, 10)]
    del crowd.members[1]
    gc.collect()
    assert listed(first) == [(0, 10)]


def test_joining_again_gives_the_entry_back_that_an_interrupt_left(crowd: Crowd) -> None:
    first = crowd.join(10)
    first.join_locked()
    assert listed(first) == [(1, 10)]


def test_copies_of_a_file_never_count_alike_in_one_process(crowd: Crowd) -> None:
    first = crowd.join(10)
    crowd.world.words[f.NEXT_ATTACHMENT] = 0
    assert (first.number, crowd.join(10).number) == (0, 1)


def test_only_the_owner_gives_an_entry_back(crowd: Crowd) -> None:
    # A forked child has its parent's object, and is somebody else.
    first = crowd.join(10)
    crowd.pid = 99
    first.leave()
    assert listed(first) == [(0, 10)]


def test_a_forked_child_has_no_entry_and_notes_nothing(crowd: Crowd) -> None:
    first = crowd.join(10)
    first.forget()
    first.added(5)
    first.sampled()
    (entry,) = first.all()
    assert (entry.sequences, entry.added_s_ago, entry.sampled_s_ago) == (0, None, None)
    assert [other.pid for other in first.others()] == [10]


def test_what_each_has_done_is_noted(crowd: Crowd) -> None:
    first, second = crowd.join(10), crowd.join(11)
    for length in (5, 7):
        second.added(length)
    first.sampled()
    one, two = first.all()
    assert (one.sequences, one.steps, two.sequences, two.steps) == (0, 0, 2, 12)
    assert one.added_s_ago is None and two.sampled_s_ago is None
    assert 0 <= (one.sampled_s_ago or 0) < 60 and 0 <= (two.added_s_ago or 0) < 60


def test_an_entry_describes_itself(crowd: Crowd) -> None:
    first, second = crowd.join(10), crowd.join(11)
    second.added(5)
    crowd.dead.add(11)
    texts = [str(entry) for entry in first.all()]
    assert texts[0] == "pid 10 (alive, never added)"
    assert re.fullmatch(r"pid 11 \(gone, added \d+\.\d s ago\)", texts[1])
    first.sampled()
    assert re.fullmatch(
        r"pid 10 \(alive, never added, sampled \d+\.\d s ago\)", str(first.all()[0])
    )


def test_the_company_for_a_message(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    first = crowd.join(10)
    assert first.company() == (
        "no other process has the table open: see whether the others run, and were passed it"
    )
    crowd.join(11)
    assert first.company() == (
        "1 other process has the table open, 0 of them added to it: pid 11 (alive, never added)"
    )
    crowd.join(12).added(5)
    assert re.fullmatch(
        r"2 other processes have the table open, 1 of them added to it: pid 11 \(alive, never "
        r"added\); pid 12 \(alive, added \d+\.\d s ago\)",
        first.company(),
    )


def test_the_dead_make_room_when_there_is_no_other(crowd: Crowd) -> None:
    for pid in range(1000, 1000 + module.ENTRIES):
        crowd.join(pid)
    crowd.dead |= {1003, 1200}
    newcomer = crowd.join(5)
    pids = [entry.pid for entry in newcomer.all()]
    assert len(pids) == module.ENTRIES and pids[-1] == 5
    assert 1003 not in pids and 1200 in pids
    assert newcomer.can_tell()


def test_in_a_crowd_of_the_living_newcomers_have_no_entry(crowd: Crowd) -> None:
    everybody = [crowd.join(pid) for pid in range(1000, 1000 + module.ENTRIES)]
    last = crowd.join(6)
    assert last.number == module.ENTRIES
    last.added(5)
    last.sampled()
    assert [entry.pid for entry in last.others()] == [*range(1000, 1000 + module.ENTRIES)]
    assert not any(entry.sequences for entry in last.all())
    # So that nobody concludes from the entries that nobody is left.
    crowd.dead.update(range(1000, 1000 + module.ENTRIES))
    assert not everybody[0].can_tell()
    assert "256 other processes have the table open, and more that are not" in last.company()
    last.leave()
    assert crowd.join(7).all()[-1].pid == 7


@pytest.mark.parametrize("start", [0, 77])
def test_entries_are_read_whole_or_not_at_all(crowd: Crowd, start: int) -> None:
    # The pid is stored last: an entry that is being taken does not count yet.
    first = crowd.join(10)
    entries: Any = crowd.world.arrays.attachment_words
    entries[module.ENTRY_WORDS + 1] = start
    entries[module.ENTRY_WORDS + 2] = 5
    assert listed(first) == [(0, 10)]
