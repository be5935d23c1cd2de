"""No two processes draw the same windows, and a forked child can draw at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shmtable import ArrayMemoryTable, UniformEjectionStrategy
from tests.multiprocess import content, crowded
from tests.multiprocess.recipe import DEADLINE_S, Crew

ROOT = Path(__file__).parents[2]
SEQUENCES, LENGTH = 40, 25
DRAWS, WINDOWS = 10, 64
RUN = 4  # windows in a row; two independent streams share one with probability below 1e-5

Stream = list[tuple[int, int]]


def _draw(table: ArrayMemoryTable) -> Stream:
    """Identity and offset of many windows, in the order they were drawn."""
    drawn: Stream = []
    for _ in range(DRAWS):
        points = table.sample(WINDOWS, 1).points
        assert points is not None
        drawn += zip(points.identities.tolist(), points.offsets.tolist(), strict=True)
    return drawn


def _runs(stream: Stream) -> set[tuple[tuple[int, int], ...]]:
    return {tuple(stream[at : at + RUN]) for at in range(len(stream) - RUN + 1)}


def _full_table(make_table, **options: object) -> ArrayMemoryTable:
    table: ArrayMemoryTable = make_table(
        columns=content.columns(), seed=3, maxlen=SEQUENCES * LENGTH, **options
    )
    for identity in range(SEQUENCES):
        table.add_sequence(identity, content.sequence(identity, LENGTH))
    return table


@pytest.mark.parametrize(
    ("method", "drawn_before"), [("fork", False), ("fork", True), ("spawn", True)]
)
def test_parent_and_children_draw_from_different_streams(
    make_table, method: str, drawn_before: bool
) -> None:
    table = _full_table(make_table)
    streams = [_draw(table)] if drawn_before else []
    with Crew(method) as crew:
        for _ in range(2):
            crew.add(_draw, table)
        crew.go()
        streams += crew.results()
    streams.append(_draw(table))
    runs = [_runs(stream) for stream in streams]
    assert all(len(stream) == DRAWS * WINDOWS for stream in streams)
    assert len(set().union(*runs)) == sum(map(len, runs))


def _ejected(table: ArrayMemoryTable) -> list[int]:
    """Adds one sequence in place of half the table; who was ejected for it."""
    before = set(table.identities().tolist())
    table.add_sequence(1000, content.sequence(1000, SEQUENCES * LENGTH // 2))
    return sorted(before - set(table.identities().tolist()))


def test_processes_eject_from_different_streams(make_table) -> None:
    choices = []
    for method in ("none", "fork"):
        table = _full_table(make_table, ejector=UniformEjectionStrategy())
        _draw(table)  # this process has its generator now; the child inherits its state
        if method == "none":
            choices.append(_ejected(table))
            continue
        with Crew(method) as crew:
            crew.add(_ejected, table)
            crew.go()
            choices += crew.results()
    assert choices[0] != choices[1]
    assert all(len(choice) >= SEQUENCES // 2 for choice in choices)


def test_a_child_forked_after_parallel_work_samples_without_hanging() -> None:
    done = subprocess.run(
        [sys.executable, "-m", crowded.__name__],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["parent:", "whole", "child:", "whole", "grandchild:", "whole"]
