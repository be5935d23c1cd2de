"""What becomes of an episode that was never ended."""

from __future__ import annotations

import gc
import itertools
import logging
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shmtable import (
    ClosedError,
    FifoSampleStrategy,
    Queue,
    RateLimitedError,
)
from tests.table.snapshots import content
from tests.tables import small_sequence
from tests.writer.episodes import ACTIONS, KEPT, MakeTable, left, part, play, steps_of

FLUSHED = {1: part(small_sequence(1, 4), 0, 3, obs=1)}


@pytest.mark.parametrize(
    ("unfinished", "kept", "said"),
    [("flush", FLUSHED, "4 steps .* added as truncated"), ("drop", {}, "4 steps .* dropped")],
)
@pytest.mark.parametrize("way", ["with", "close", "collected"])
def test_what_is_open_is_flushed_or_dropped_as_asked(
    make_table: MakeTable, caplog: Any, unfinished: str, kept: Any, said: str, way: str
) -> None:
    table = make_table()
    writer = left(table.writer(identity=1, unfinished=unfinished), 4)
    if way == "with":
        with writer:
            pass
    elif way == "close":
        writer.close()
        writer.close()
    del writer
    gc.collect()
    assert content(table) == kept
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.name == "shmtable"
    caplog.clear()
    assert re.search(said, record.getMessage())


def test_an_exception_drops_what_is_open(make_table: MakeTable, caplog: Any) -> None:
    table = make_table()
    with pytest.raises(ZeroDivisionError), table.writer(identity=1) as writer:
        play(writer, 5, 2)
        left(writer, 4)
        _ = 1 / 0
    assert list(content(table)) == [1]
    assert "4 steps" in caplog.text and "dropped, because ZeroDivisionError" in caplog.text


def test_nothing_open_is_nothing_said(make_table: MakeTable, caplog: Any) -> None:
    table = make_table()
    with table.writer() as writer:
        play(writer, 1, 2)
        assert left(writer, 3).drop() == 3
        assert left(writer, 3).flush() != []
        assert writer.flush() == []
    assert caplog.text == ""
    assert table.stats().sequences == 2


def test_the_flushed_are_truncated(make_table: MakeTable) -> None:
    table = make_table(columns=[ACTIONS, *KEPT["columns"]])
    with table.writer(identity=1) as writer:
        writer.append(actions=3)
        assert writer.flush() == [1]
    assert table.sequence(1)["terminated"].tolist() == [False]
    assert table.sequence(1)["truncated"].tolist() == [[1]]


def test_only_what_no_part_has_is_flushed(make_table: MakeTable) -> None:
    table, sequence = make_table(), small_sequence(1, 6)
    with table.writer(identity=1, chunk=3, overlap=2) as writer:
        for step in itertools.islice(steps_of(sequence), 4):
            writer.append(**step)
        # The fourth step is only what follows the third.
        assert writer.flush() == [1]
        for step in itertools.islice(steps_of(sequence), 5):
            writer.append(**step)
        assert writer.flush() == [2, 3]
    assert content(table)[3] == part(sequence, 1, 4, obs=1)
    assert table.stats().sequences == 3


@pytest.mark.parametrize("way", ["close", "collected"])
def test_what_cannot_be_flushed_is_dropped_and_told(
    make_table: MakeTable, caplog: Any, way: str
) -> None:
    table = make_table(limiter=Queue(1), sampler=FifoSampleStrategy())
    writer = table.writer(timeout_s=0.0 if way == "close" else None)
    play(writer, 1, 2)
    left(writer, 4)
    if way == "close":
        with pytest.raises(RateLimitedError):
            writer.close()
    del writer
    gc.collect()  # without waiting for ever
    assert "4 steps" in caplog.text and "dropped" in caplog.text
    assert table.stats().sequences == 1


def test_a_writer_collected_inside_the_lock_disturbs_nobody(
    make_table: MakeTable, caplog: Any
) -> None:
    table = make_table()
    held = [left(table.writer(), 4)]
    table._core.guard.run(held.clear)
    assert "held by this very call" in caplog.text and "4 steps" in caplog.text
    assert table.size() == 0 and table.check() == []
    with table.writer() as writer:
        play(writer, 1, 3)
    assert table.size() == 3


def test_a_writer_outlives_its_table_s_end_with_a_clear_error(
    make_table: MakeTable, caplog: Any
) -> None:
    table = make_table()
    writer = left(table.writer(), 4)
    table.close()
    with pytest.raises(ClosedError, match="table is closed"):
        writer.end(obs=[1, 2, 3])
    with pytest.raises(ClosedError, match="table is closed"):
        writer.close()
    for call in (lambda: left(writer, 1), lambda: writer.end(obs=[1, 2, 3]), writer.flush):
        with pytest.raises(ClosedError, match="writer is closed"):
            call()
    assert "4 steps" in caplog.text and "dropped" in caplog.text


def test_a_writer_stays_where_it_is(make_table: MakeTable) -> None:
    with make_table().writer() as writer, pytest.raises(TypeError, match="make a writer there"):
        pickle.dumps(writer)


PROGRAM = """
from shmtable import ArrayMemoryTable
from tests.writer.episodes import left
import sys

table = ArrayMemoryTable.attach(sys.argv[1])
writer = left(table.writer(identity=1, unfinished=sys.argv[2]), 4)
kept = [writer]
kept.append(kept)  # nothing but the end of the process ends it
{ending}
"""


@pytest.mark.parametrize(
    ("unfinished", "kept", "ending"),
    [("flush", FLUSHED, ""), ("flush", FLUSHED, "raise ValueError"), ("drop", {}, "sys.exit(3)")],
)
def test_the_end_of_the_interpreter_is_the_end_of_the_writer(
    make_table: MakeTable, unique_name: Any, unfinished: str, kept: Any, ending: str
) -> None:
    name = unique_name()
    table = make_table(name=name)
    program = PROGRAM.format(ending=ending)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, name, unfinished],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "4 steps of unfinished episodes were" in run.stderr, run.stderr
    assert content(table) == kept
