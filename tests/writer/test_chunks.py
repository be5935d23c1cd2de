"""Long episodes are cut into several sequences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from shmtable import (
    Column,
    FifoSampleStrategy,
    NextNElementWrapper,
    Queue,
    RateLimitedError,
    SequenceError,
    TagColumn,
    VirtualColumn,
)
from tests.table.snapshots import content
from tests.tables import small_sequence
from tests.writer.episodes import MakeTable, part, steps_of


def cuts(length: int, chunk: int, overlap: int) -> Iterator[tuple[int, int]]:
    """First and last step of each part, by definition: no part is only an overlap."""
    first = 0
    while first + chunk < length:
        yield first, first + chunk
        first += chunk - overlap
    yield first, length


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize(
    ("chunk", "overlap"), [(1, 0), (2, 0), (2, 1), (5, 0), (5, 2), (5, 4), (64, 10), (200, 0)]
)
def test_long_episodes_are_cut(make_table: MakeTable, ahead: int, chunk: int, overlap: int) -> None:
    columns = [Column("actions", (), "int64"), Column("obs", (), "float32")]
    columns.append(TagColumn("truncated", (), bool))
    if ahead:
        mapper = NextNElementWrapper.with_n(ahead)
        columns.append(VirtualColumn("next_obs", (), "float32", "obs", mapper))
    table = make_table(columns=columns, maxlen=100_000)
    obs, actions = np.arange(1000, dtype=np.float32), np.arange(1000) + 5
    with table.writer(identity=0, chunk=chunk, overlap=overlap) as writer:
        for length in (1, 2, chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + 1, 150):
            if not length:
                continue
            for step in range(length):
                writer.append(actions=actions[step], obs=obs[step])
            after = obs[length : length + ahead]
            final = {} if not ahead else {"obs": after if ahead > 1 else after[0]}
            parts = writer.end(truncated=False, **final)
            wanted = list(cuts(length, chunk, overlap))
            assert parts == list(range(parts[0], parts[0] + len(wanted)))
            for identity, (first, last) in zip(parts, wanted, strict=True):
                assert {n: c.tolist() for n, c in table.sequence(identity).items()} == {
                    "actions": actions[first:last].tolist(),
                    "obs": obs[first : last + ahead].tolist(),
                    "truncated": last != length,  # of a part that goes on elsewhere
                }


def test_a_part_is_in_the_table_as_soon_as_it_is_whole(make_table: MakeTable) -> None:
    table, sequence = make_table(), small_sequence(1, 11)
    with table.writer(identity=1, chunk=5, overlap=1) as writer:
        counts = []
        for step in steps_of(sequence):
            writer.append(**step)
            counts.append(table.stats().sequences)
        assert counts == [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
        assert writer.end(obs=sequence["obs"][11]) == [1, 2, 3]
    assert content(table)[2] == part(sequence, 4, 9, obs=1)
    assert content(table)[3] == part(sequence, 8, 11, obs=1)


def test_a_part_that_finds_no_room_leaves_the_step_to_be_appended_again(
    make_table: MakeTable,
) -> None:
    table, sequence = (
        make_table(limiter=Queue(1), sampler=FifoSampleStrategy()),
        small_sequence(1, 7),
    )
    with table.writer(identity=1, chunk=3, timeout_s=0.0) as writer:
        for step in steps_of(sequence):
            try:
                writer.append(**step)
            except RateLimitedError:
                table.sample(1, 1)
                writer.append(**step)
        table.sample(1, 1)
        assert writer.end(obs=sequence["obs"][7]) == [1, 2, 3]
    assert list(content(table).values()) == [part(sequence, 6, 7, obs=1)]


def test_without_a_chunk_an_episode_is_at_most_as_long_as_the_table(make_table: MakeTable) -> None:
    table, sequence = make_table(maxlen=100), small_sequence(1, 110)
    with table.writer(identity=1) as writer:
        for step in itertools.islice(steps_of(sequence), 100):
            writer.append(**step)
        more = next(steps_of(sequence, 100))
        with pytest.raises(SequenceError, match=r"100 steps, as many as.*chunk="):
            writer.append(**more)
        table.resize(110)
        writer.append(**more)
        writer.end(obs=sequence["obs"][101])
    assert content(table) == {1: part(sequence, 0, 101, obs=1)}
