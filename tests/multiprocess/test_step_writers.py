"""Step by step in many processes: what was ended is there, what was open when one died is not."""

from __future__ import annotations

import os
import random
import signal
import threading

import numpy as np
import pytest
import torch

from shmtable import ArrayMemoryTable, Writer
from tests.interrupts import let_alarms_interrupt
from tests.multiprocess.recipe import METHODS, Crew, link
from tests.table.snapshots import content
from tests.tables import small_sequence
from tests.writer.episodes import left, part, play, values

EPISODES = 40


def _play_many(table: ArrayMemoryTable, first: int) -> list[int]:
    """Episodes from two writers in two threads; the identities they got."""
    made: list[int] = []

    def act(start: int) -> None:
        with table.writer() as writer:
            for number in range(start, start + EPISODES):
                made.extend(play(writer, number, 1 + number % 7))

    threads = [threading.Thread(target=act, args=(first + half * EPISODES,)) for half in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


@pytest.mark.parametrize("method", METHODS)
def test_made_up_identities_differ_between_processes(make_table, method: str) -> None:
    table = make_table(maxlen=5000)
    with Crew(method) as crew:
        for number in range(3):
            crew.add(_play_many, table, 1 + number * 1000)
        crew.go()
        ours = _play_many(table, 4001)
        made = [*ours, *(identity for got in crew.results() for identity in got)]
    assert len(made) == 8 * EPISODES and len(set(made)) == len(made)
    found = content(table)
    assert sorted(found) == sorted(made)
    for sequence in found.values():
        number, length = int(sequence["obs"][0][0]), len(sequence["actions"])
        assert length == 1 + number % 7
        assert sequence == values(small_sequence(number, length))


def _play_one(table: ArrayMemoryTable) -> int:
    with table.writer() as writer:
        (identity,) = play(writer, 1, 2)
    return identity


@pytest.mark.parametrize("method", METHODS)
def test_identities_of_sequences_that_have_left_are_not_used_again(make_table, method: str) -> None:
    table = make_table()
    made = [_play_one(table)]
    for _ in range(3):
        table.clear()
        with Crew(method) as crew:
            crew.add(_play_one, table)
            crew.go()
            made += crew.results()
    table.clear()
    made.append(_play_one(table))
    assert len(set(made)) == 5 and max(made) < 0


def _play_until_killed(table: ArrayMemoryTable, chunk: int | None) -> None:
    writer = table.writer(chunk=chunk)
    for number in (1, 2):
        play(writer, number, 5)
    left(writer, 9)
    link().tell("in the middle")
    link().hear()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunk", [None, 4])
def test_what_is_open_when_a_process_is_killed_is_lost(
    make_table, method: str, chunk: int | None
) -> None:
    table = make_table()
    with Crew(method) as crew:
        member = crew.add(_play_until_killed, table, chunk)
        crew.go()
        assert member.hear() == "in the middle"
        member.kill()
        crew.results()
    found = list(content(table).values())
    episodes = [small_sequence(number, 5) for number in (1, 2)]
    if chunk is None:
        assert found == [values(episode) for episode in episodes]
    else:  # and of the open one there is what had been cut off
        assert found == [
            *(part(e, first, last, obs=1) for e in episodes for first, last in ((0, 4), (4, 5))),
            *(part(small_sequence(1, 9), first, first + 4, obs=1) for first in (0, 4)),
        ]
    with table.writer() as writer:  # and another one goes on, under names of its own
        play(writer, 3, 5)
    assert len(set(table.identities().tolist())) == len(found) + 1


def _leave_open(table: ArrayMemoryTable, unfinished: str, identity: int) -> None:
    writer = left(table.writer(identity=identity, unfinished=unfinished), 4)
    _KEPT.append(writer)  # ends with the process only


_KEPT: list[Writer] = []


@pytest.mark.parametrize("method", METHODS)
def test_a_child_s_end_is_the_end_of_its_writers(make_table, method: str) -> None:
    table = make_table()
    with Crew(method) as crew:
        crew.add(_leave_open, table, "flush", 1)
        crew.add(_leave_open, table, "drop", 2)
        crew.go()
        crew.results()
    assert content(table) == {1: part(small_sequence(1, 4), 0, 3, obs=1)}


def _inherit(writer: Writer, way: str) -> int:
    """In a forked child: the parent's open episode is not there."""
    assert len(writer) == 0
    if way == "close":
        writer.close()
    elif way == "play":
        (identity,) = play(writer, 9, 2)
        return identity
    return 0


@pytest.mark.parametrize("way", ["close", "play", "leave"])
def test_a_forked_child_leaves_its_parent_s_episode_alone(make_table, way: str) -> None:
    table = make_table()
    with table.writer() as writer:
        left(writer, 3)
        with Crew("fork") as crew:
            crew.add(_inherit, writer, way)
            crew.go()
            (theirs,) = crew.results()
        assert len(writer) == 3
        (ours,) = writer.end(obs=small_sequence(1, 3)["obs"][3])
    wanted = {ours: values(small_sequence(1, 3))}
    if way == "play":
        wanted[theirs] = values(small_sequence(9, 2))
    assert content(table) == wanted


@pytest.mark.parametrize("code", [0, 3])
def test_a_bare_fork_leaves_its_parent_s_episode_alone(make_table, code: int) -> None:
    table = make_table()
    with table.writer() as writer:
        left(writer, 3)
        pid = os.fork()
        if not pid:
            try:
                del writer
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
        assert table.size() == 0
        writer.drop()


def _storm(table: ArrayMemoryTable, seed: int) -> int:
    """Append while an interrupt comes every now and then, and go on with what is left."""
    rng = random.Random(seed)
    let_alarms_interrupt()
    interrupts, episode, writer = 0, 0, table.writer(chunk=7, overlap=3, unfinished="drop")
    for _ in range(600):
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-3))
            while True:
                episode = (episode + 1) % 900
                for step in range(rng.randrange(1, 90)):
                    writer.append(
                        obs=np.array([episode, step, 0], np.float32),
                        actions=episode * 1000 + step,
                        rewards=float(episode + step),
                    )
                writer.end(obs=[episode, step + 1, 0])
        except KeyboardInterrupt:
            interrupts += 1
    writer.drop()
    return interrupts


def test_interrupts_never_mix_the_columns_of_different_steps(make_table) -> None:
    table = make_table(maxlen=50_000)
    with Crew("fork") as crew:
        crew.add(_storm, table, 5)
        crew.go()
        assert crew.results() == [600]
    sequences = list(map(table.sequence, table.identities().tolist()))
    assert len(sequences) > 100
    for sequence in sequences:
        episode, step = sequence["obs"][:-1, 0].long(), sequence["obs"][:-1, 1].long()
        assert torch.equal(sequence["actions"], episode * 1000 + step)
        assert torch.equal(sequence["rewards"], (episode + step).float())
