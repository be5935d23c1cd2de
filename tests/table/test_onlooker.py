"""Who only looks sees what the table sees, and leaves no trace, whatever happens to either."""

from __future__ import annotations

import collections
import os
import random
import time

import numpy as np
import pytest

from shmtable import (
    ArenaDamagedError,
    ArenaNotFoundError,
    ClosedError,
    MinSize,
    Onlooker,
    PrioritizedSampleStrategy,
    SpecError,
)
from shmtable.protocols import census
from shmtable.shm import places
from tests.cli.running import add_until_told, fill
from tests.multiprocess.recipe import Crew


def test_it_sees_what_the_table_says(make_table, unique_name) -> None:
    table = make_table(name=unique_name(), limiter=MinSize(30))
    fill(table)
    with Onlooker(table._core.arena.name) as onlooker, Onlooker.of(table) as same:
        assert onlooker.stats() == same.stats() == table.stats()
        assert onlooker.stats().limiter == repr(table.limiter)
        fill_more = table.stats()
        table.remove(0)
        assert onlooker.stats() == table.stats() != fill_more
        (process,) = onlooker.stats().processes
        assert process.pid == os.getpid() and process.alive and process.sequences_added == 5
        assert not onlooker.is_gone() and not onlooker.is_half_changed()
        description = onlooker.description()
        description["columns"].clear()
        assert len(onlooker.description()["columns"]) == 5


@pytest.mark.parametrize("per", ["transition", "sequence"])
def test_it_sees_sequences_one_by_one(make_table, per) -> None:
    table = make_table(sampler=PrioritizedSampleStrategy(per=per), maxlen=100)
    fill(table, 8)
    table.remove(5)
    sample = table.sample(50, 1)
    table.update_priorities(sample.points, np.full(50, 3.0))
    with Onlooker.of(table) as onlooker:
        seen = onlooker.sequences()
    assert seen.lengths.tolist() == [20] * 4 and seen.ages.tolist() == [80, 60, 20, 0]
    assert seen.priorities is not None
    assert len(seen.priorities) == (80 if per == "transition" else 4)
    assert set(seen.priorities) <= {1.0, 3.0} and 3.0 in seen.priorities
    kept = dict(zip((3, 4, 6, 7), seen.times_sampled, strict=True))
    drawn = np.bincount(sample.points.identities, minlength=8)
    assert all(times >= drawn[identity] for identity, times in kept.items())


def test_an_empty_table_and_one_cleared(make_table) -> None:
    table = make_table()
    with Onlooker.of(table) as onlooker:
        assert len(onlooker.sequences().lengths) == 0 and onlooker.sequences().priorities is None
        fill(table)
        table.clear()
        assert len(onlooker.sequences().lengths) == 0
        assert onlooker.stats().oldest_age_transitions == 0


def test_it_writes_nothing_and_is_no_user(make_table, unique_name) -> None:
    name = unique_name()
    table = make_table(name=name)
    fill(table)
    before = bytes(table._core.arena.words)
    with Onlooker(name) as onlooker:
        onlooker.stats()
        onlooker.sequences()
    assert bytes(table._core.arena.words) == before
    table.close()
    assert not os.path.exists(places.shared_prefix() + name)
    with pytest.raises(ArenaNotFoundError):
        Onlooker(name)
    with pytest.raises(SpecError):
        Onlooker("no/name")
    with pytest.raises(ClosedError):
        Onlooker.of(table)


def test_it_outlives_the_table_and_says_so(make_table, unique_name) -> None:
    name = unique_name()
    table = make_table(name=name)
    fill(table)
    # Opened as another process would, not shared with the table of this one.
    with Crew("fork") as crew:
        watcher = crew.add(watch_until_gone, name)
        crew.go()
        assert watcher.hear() == 100
        table.close()
        assert crew.results() == [(100, True)]


def watch_until_gone(name: str) -> tuple[int, bool]:
    from tests.multiprocess.recipe import link

    onlooker = Onlooker(name)
    link().tell(onlooker.stats().transitions)
    until = time.monotonic() + 60
    while not onlooker.is_gone() and time.monotonic() < until:
        time.sleep(0.01)
    return onlooker.stats().transitions, onlooker.is_gone()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_writers_are_killed_while_it_looks(make_table, method) -> None:
    """Killed anywhere, under the lock too: looking never raises, waits or takes anything."""
    table = make_table(maxlen=500)
    with Onlooker.of(table) as onlooker, Crew(method) as crew:
        for _ in range(4):
            victim = crew.start(add_until_told, table)
            assert victim.hear() == "ready"
            assert victim.hear() == "adding"
            for _ in range(20):
                stats = onlooker.stats()
                assert 0 <= stats.transitions <= 500 and 0 <= stats.fill <= 1
                assert stats.transitions_added >= stats.transitions
                seen = onlooker.sequences()
                assert set(seen.lengths.tolist()) <= {20}
            victim.kill()
            victim.join()
            table.clear()
            crew.dismiss(victim)
        assert onlooker.stats() == table.stats()


def test_numbers_that_are_none_are_refused(make_table) -> None:
    table = make_table()
    words = table._core.arena.words
    with Onlooker.of(table) as onlooker:
        slot_high = 101
        kept, words[slot_high] = words[slot_high], 1 << 40
        try:
            with pytest.raises(ArenaDamagedError, match="slot high is"):
                onlooker.stats()
        finally:
            words[slot_high] = kept


def test_whatever_a_file_holds_it_is_said_what_it_is(make_table, tmp_path) -> None:
    """Bytes changed at random, in the header, the description and the index."""
    table = make_table(name="whole", directory=str(tmp_path), maxlen=50, limiter=MinSize(3))
    fill(table, 2)
    table.close()
    content = (tmp_path / "whole.shmtable").read_bytes()
    path = tmp_path / "changed.shmtable"
    chance = random.Random(1)
    states = collections.Counter()
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 3, 30))):
            changed[chance.choice((chance.randrange(5000), chance.randrange(40_000)))] = (
                chance.randrange(256)
            )
        path.write_bytes(changed)
        path.chmod(0o600)
        found = census.listed("changed", str(path))
        states[found.state] += 1
        if found.stats is not None:
            with Onlooker("changed", directory=str(tmp_path)) as onlooker:
                onlooker.sequences()
    assert states["damaged"] > 20 and states["at rest"] + states["unclean"] > 20
