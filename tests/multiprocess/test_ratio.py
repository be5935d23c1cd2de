"""A ratio between processes: its bounds hold under load, and nobody's death uses them up."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest

from shmtable import ArrayMemoryTable, RateLimitedError, SampleToInsertRatio, WaitTimeoutError
from tests.chaos.content import Entry
from tests.chaos.operations import die_in_copy
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link

LONG_S = 60.0
STEPS = 4
RATIO, MIN_SIZE, BUFFER = 1.5, 60, 60
LIMITER = SampleToInsertRatio(RATIO, MIN_SIZE, BUFFER)


def _write(table: ArrayMemoryTable, first: int) -> None:
    identity = first
    while not link().told():
        length = STEPS + identity % 17
        table.add_sequence(identity, content.sequence(identity, length), timeout_s=LONG_S)
        identity += 1


def _read(table: ArrayMemoryTable, count: int) -> None:
    while not link().told():
        try:
            sample = table.sample(count, STEPS, timeout_s=0.5)
        except WaitTimeoutError:
            continue
        assert content.wrong_with(sample, STEPS) == []


def _ahead(table: ArrayMemoryTable) -> float:
    stats = table.stats()
    if stats.transitions >= MIN_SIZE:
        ahead = stats.transitions_added * RATIO - stats.windows_sampled * STEPS
        assert LIMITER.low <= ahead <= LIMITER.high
        return ahead
    assert stats.windows_sampled == 0
    return 0.0


@pytest.mark.parametrize("lock", ["robust", "portable"])
def test_bounds_hold_while_writers_are_killed(make_table: Any, lock: str) -> None:
    table = make_table(columns=content.columns(), maxlen=300, limiter=LIMITER, lock=lock)
    chance = random.Random(3)
    seen = []
    with Crew("fork") as crew:
        members = [crew.start(_write, table, number << 20) for number in range(2)]
        members += [crew.start(_read, table, count) for count in (3, 7)]
        for victims in range(10):
            victim = crew.start(_write, table, (10 + victims) << 20)
            ends = table.stats().transitions_added + chance.randrange(200, 600)
            while table.stats().transitions_added < ends:
                seen.append(_ahead(table))
                for member in members:
                    member.look()
            victim.kill()
            victim.join()
            crew.dismiss(victim)
        for member in members:
            member.tell("stop")
        # Whoever waits for the other side gets it, until both have stopped.
        table.limiter = None
        crew.results()
    assert len(seen) > 20 and max(seen) > LIMITER.low + BUFFER / 2
    assert table.check() == []


def test_a_dead_writer_gives_its_share_back(make_table: Any) -> None:
    table = make_table(columns=content.columns(), limiter=SampleToInsertRatio(1.0, 20, 20))
    table.add_sequence(1, content.sequence(1, 20))
    with Crew("fork") as crew:
        crew.add(die_in_copy, table, Entry(2, 20)).expected_exit = -signal.SIGKILL
        crew.go()
        crew.results()
    # Its 20 transitions are being written for all that anybody knows; room for none is left.
    assert table.stats().writing_transitions == 20 and not table.can_insert(20)
    table.add_sequence(3, content.sequence(3, 20), timeout_s=LONG_S)
    with pytest.raises(RateLimitedError):
        table.add_sequence(4, content.sequence(4, 1), timeout_s=0)
    table.sample(19, 1)
    assert not table.can_insert(1)  # before one of 20 may be added
    table.sample(1, 1)
    table.add_sequence(4, content.sequence(4, 1), timeout_s=0)


def test_a_writer_at_work_keeps_its_share(make_table: Any) -> None:
    table = make_table(columns=content.columns(), limiter=SampleToInsertRatio(1.0, 20, 20))
    table.add_sequence(1, content.sequence(1, 20))
    with Crew("fork") as crew:
        member = crew.add(_add_slowly, table, 2, 20)
        crew.go()
        assert member.hear() == "writing"
        with pytest.raises(RateLimitedError, match="would be 60 transitions, at most 40"):
            table.add_sequence(3, content.sequence(3, 1), timeout_s=0)
        # Nobody can sample yet what is being written.
        table.sample(15, 1)
        with pytest.raises(RateLimitedError, match="would be -1 transitions"):
            table.sample(6, 1)
        member.tell("go on")
        crew.results()
    table.sample(6, 1)


def _add_slowly(table: ArrayMemoryTable, identity: int, length: int) -> None:
    write = table._core.storage.write

    def wait_and_write(*arguments: Any) -> None:
        link().tell("writing")
        link().hear()
        write(*arguments)

    table._core.storage.write = wait_and_write  # type: ignore[method-assign, assignment]
    table.add_sequence(identity, content.sequence(identity, length))


def _sample_once(table: ArrayMemoryTable, count: int) -> int:
    gather = table._core.storage.gather_copied

    def wait_and_gather(*arguments: Any, **more: Any) -> Any:
        if not told:
            told.append("picked")
            link().tell("picked")
            link().hear()
        return gather(*arguments, **more)

    told: list[str] = []
    table._core.storage.gather_copied = wait_and_gather  # type: ignore[method-assign, assignment]
    sample = table.sample(count, 1, timeout_s=LONG_S)
    assert content.wrong_with(sample, 1) == []
    return len(sample["actions"])


def test_readers_that_pick_at_once_do_not_share_one_budget(make_table: Any) -> None:
    table = make_table(columns=content.columns(), limiter=SampleToInsertRatio(1.0, 20, 20))
    table.add_sequence(1, content.sequence(1, 20))
    with Crew("fork") as crew:
        members = [crew.add(_sample_once, table, 15) for _ in range(2)]
        crew.go()
        for member in members:  # there is room for one of them: 20 - 15 - 15 < 0
            assert member.hear() == "picked"
        for member in members:
            member.tell("go on")
        while table.stats().windows_sampled < 15:
            pass
        with pytest.raises(RateLimitedError):
            table.sample(6, 1)
        table.add_sequence(2, content.sequence(2, 10))
        assert crew.results() == [15, 15]


def _write_alike(table: ArrayMemoryTable, first: int, length: int) -> None:
    for identity in range(first, first + (1 << 20)):
        if link().told():
            break
        table.add_sequence(identity, content.sequence(identity, length), timeout_s=LONG_S)


def test_long_sequences_get_their_turn_beside_short_ones(make_table: Any) -> None:
    """With room for just its own, a short one would be added as soon as 4 have been sampled."""
    limiter = SampleToInsertRatio(1.0, 100, 110)
    table = make_table(columns=content.columns(), maxlen=4000, limiter=limiter)
    with Crew("fork") as crew:
        members = [crew.start(_write_alike, table, 0, 100)]
        members += [crew.start(_write_alike, table, n << 20, STEPS) for n in (1, 2)]
        members.append(crew.start(_read, table, 1))
        while table.stats().sequences_added < 400:
            for member in members:
                member.look()
        for member in members:
            member.tell("stop")
        table.limiter = None
        crew.results()
    identities = table.identities()
    long = int((identities < 1 << 20).sum())
    assert long > len(identities) / 10
