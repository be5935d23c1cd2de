"""A signal's handler raises somewhere inside a writer: what is in the table stays true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shmtable import ArrayMemoryTable
from tests.interrupts import cut_off
from tests.table.snapshots import content
from tests.tables import small_sequence
from tests.writer.episodes import part, play, steps_of, values
from tests.writer.test_vector import COLUMNS, World, vector

MakeTable = Callable[..., ArrayMemoryTable]
FILES = ("writer.py", "/columns/steps.py", "/endings.py", "/write.py")


class AlarmError(Exception):
    """What many a handler raises: no interrupt for Python, and yet one."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, AlarmError])
@pytest.mark.parametrize("options", [{}, {"chunk": 2, "overlap": 1}, {"identity": 5}], ids=str)
def test_an_exception_at_any_point_leaves_only_true_sequences(
    make_table: MakeTable, options: dict[str, Any], error: type[BaseException]
) -> None:
    table = make_table()
    whole = values(small_sequence(1, 4))
    later = values(small_sequence(2, 4))
    point, cut = 0, True
    while cut:
        point += 1
        table.clear()
        writer = table.writer(unfinished="drop", **options)

        def first(writer: Any = writer) -> None:
            play(writer, 1, 4)

        cut = cut_off(first, point, FILES, error)
        # Where it still has the episode, it goes on with it.
        if len(writer) and not options.get("chunk"):
            for step in steps_of(small_sequence(1, 4), len(writer)):
                writer.append(**step)
            writer.end(obs=small_sequence(1, 4)["obs"][4])
        elif len(writer):
            writer.flush()
        second = play(writer, 2, 4)
        found = content(table)
        parts = [found.pop(identity) for identity in second]
        assert parts[0]["actions"][0] == later["actions"][0]
        assert parts[-1]["actions"][-1] == later["actions"][-1]
        rest = list(found.values())
        assert all(one in _parts(whole) for one in rest), (point, rest)
        assert len(rest) == len({tuple(one["actions"]) for one in rest}), (point, rest)
        writer.close()
    assert point > 50


def _parts(sequence: dict[str, list[Any]]) -> list[dict[str, list[Any]]]:
    """Every run of steps there is in a sequence."""
    rows = small_sequence(1, 4)
    length = len(sequence["actions"])
    return [
        part(rows, first, last, obs=1)
        for first in range(length)
        for last in range(first + 1, length + 1)
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, AlarmError])
def test_an_exception_in_a_vector_writer_mixes_no_steps(
    make_table: MakeTable, error: type[BaseException]
) -> None:
    table = make_table(columns=COLUMNS)
    world = World([[3, 2, 2], [4, 2]], "next_step")
    calls = [world.call() for _ in range(9)]
    point, cut = 0, True
    while cut:
        point += 1
        table.clear()
        writer = vector(table, 2, "next_step", chunk=2, unfinished="drop")
        appended: list[int] = []

        def append(writer: Any = writer, appended: list[int] = appended) -> None:
            for number in range(5):
                writer.append(**calls[number])
                appended.append(number)

        cut = cut_off(append, point, FILES, error)
        for call in calls[len(appended) :]:
            writer.append(**call)
        steps = set()
        for sequence in content(table).values():
            obs = np.array(sequence["obs"])
            assert (obs[:, 0] == sequence["who"]).all() and (obs[:, 1] == obs[0, 1]).all()
            assert (np.diff(obs[:, 2]) == 1).all()
            assert sequence["rewards"] == obs[1:, 2].tolist()
            steps |= {tuple(row) for row in obs[:-1].tolist()}
        # What begins afterwards is all there.
        assert steps >= {
            (place, episode, step) for place, episode in ((0, 2), (1, 1)) for step in range(2)
        }
        writer.close()
    assert point > 50
