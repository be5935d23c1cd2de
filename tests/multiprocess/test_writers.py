"""Writers in other processes churn a small table while this one samples from it."""

from __future__ import annotations

import pytest

from shmtable import ArrayMemoryTable, UniformEjectionStrategy
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link

WIDTH = 128  # wide enough for a copy to last as long as several adds
MOST_STEPS = 24
WINDOWS = 32  # small enough for all of them to be gathered under the lock, if it comes to that
SAMPLES = 150
RENEWALS = 40  # how often the whole table must have been ejected before the test is worth something


def _churn(table: ArrayMemoryTable, first: int) -> tuple[int, int]:
    """Adds until told to stop; the number of sequences and transitions added."""
    added = transitions = 0
    while not link().told():
        length = 1 + (first + added * 7) % MOST_STEPS
        table.add_sequence(
            first + added, content.sequence(first + added, length, version=added % 5, width=WIDTH)
        )
        added += 1
        transitions += length
    return added, transitions


@pytest.mark.parametrize(
    ("method", "lock", "writers"),
    [("fork", "robust", 3), ("fork", "portable", 3), ("spawn", "robust", 2),
     ("forkserver", "portable", 2)],
)  # fmt: skip
def test_windows_are_whole_while_writers_churn(
    make_table, method: str, lock: str, writers: int
) -> None:
    table = make_table(
        columns=content.columns(WIDTH), maxlen=400, ejector=UniformEjectionStrategy(), lock=lock
    )
    with Crew(method) as crew:
        for number in range(writers):
            crew.add(_churn, table, number << 24)
        crew.go()
        wrong = _watch(table)
        for member in crew.members:
            member.tell("stop")
        results = crew.results()
    assert wrong == []
    stats = table.stats()
    assert stats.sequences_added == sum(added for added, _ in results)
    assert stats.transitions_added == sum(transitions for _, transitions in results)
    assert stats.sequences_removed > 0 and stats.writing_transitions == 0
    assert stats.recoveries == 0
    identities = table.identities().tolist()
    assert len(set(identities)) == len(identities) == stats.sequences
    for identity in identities:
        added, _ = results[identity >> 24]
        assert identity & 0xFFFFFF < added
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []


def _watch(table: ArrayMemoryTable) -> list[str]:
    """Samples windows of many lengths while everything is replaced many times over."""
    wrong: list[str] = []
    samples = 0
    enough = RENEWALS * table.maxlen
    while not wrong and (samples < SAMPLES or table.stats().transitions_added < enough):
        steps = 1 + samples % 8
        sample = table.sample(WINDOWS, steps, timeout_s=60)
        wrong = content.wrong_with(sample, steps)
        points = sample.points
        assert points is not None
        if points.identities.tolist() != sample["who"][:, 0].tolist():
            wrong.append(f"points of {points.identities}, tags of {sample['who'][:, 0]}")
        samples += 1
    return wrong
