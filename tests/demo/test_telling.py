"""What people see: figures, summary, picture, on a terminal and elsewhere."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from shmtable.demo.learner import Outcome
from shmtable.demo.meter import Meter
from shmtable.demo.options import parse
from shmtable.demo.picture import draw
from shmtable.demo.progress import figures, open_screen
from shmtable.demo.summary import summarise
from tests.demo.test_pace import stats


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def table_stats(added: int, sampled: int, size: int = 50):
    """Counts of a table with room for 100 transitions."""
    return dataclasses.replace(stats(added, sampled), transitions=size, maxlen=100)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Meter:
    """Two seconds of a run, 0.1 of them spent sampling and 0.3 training."""
    meter = Meter(clock)
    meter.add_moment(table_stats(0, 0, size=0))
    meter.add_episode(10.0, 0.9)
    meter.add_episode(20.0, 0.8)
    for sample_s in (0.02, 0.02, 0.06):
        with meter.timing("sampling"):
            clock.now_s += sample_s
        with meter.timing("training"):
            clock.now_s += 0.1
        meter.updates += 1
    meter.evaluations.append((30, 15.0))
    clock.now_s = 102.0
    meter.add_moment(table_stats(100, 400))
    return meter


def test_figures_are_those_of_the_newest_moment(meter):
    assert figures(meter) == {
        "time": "2 s",
        "episodes": "2",
        "return": "15",
        "greedy": "15",
        "epsilon": "0.80",
        "steps in": "100 (50/s)",
        "samples out": "400 (200/s)",
        "updates": "3",
        "fill": "50%",
    }


def test_summary_says_how_it_ended_and_what_it_took(meter):
    said = summarise(Outcome.SOLVED, meter, table_stats(100, 400), None)
    lines = dict(line.strip().split("  ", 1) for line in said.splitlines())
    assert lines["outcome"] == "solved (exit code 0)"
    assert lines["time"] == "2.0 s"
    assert lines["actors"] == "2 episodes, 100 steps"
    assert lines["learner"] == "3 updates, 400 transitions sampled"
    assert lines["replay ratio"].startswith("4.0 ")
    assert lines["sample latency"] == "p50 20000 µs, p99 59200 µs"
    assert lines["sampling"] == "25.0% of the learner's time"
    assert lines["learner's time"] == "training 75.0%, sampling 25.0%"


def test_a_run_that_never_began_can_be_summed_up(clock):
    said = summarise(Outcome.NO_ACTORS, Meter(clock), table_stats(0, 0, size=0), None)
    assert "not solved: no actor was left (exit code 1)" in said
    assert "p50 0 µs" in said


def test_the_picture_is_the_only_file(meter, tmp_path):
    path = draw(meter, parse(["--output", str(tmp_path)]))
    assert [path] == list(tmp_path.iterdir())
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_nothing_can_be_drawn(clock, tmp_path):
    assert draw(Meter(clock), parse(["--output", str(tmp_path)])).stat().st_size > 0


def test_elsewhere_than_on_a_terminal_lines_are_printed_now_and_then(meter, clock, capsys):
    with open_screen(Console(file=io.StringIO())) as screen:
        screen.say("here we go")
        screen.show(meter)
        screen.show(meter)
        clock.now_s += 5.0
        meter.add_moment(table_stats(200, 800))
        screen.show(meter)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:10] for line in lines] == ["here we go", "time 2 s  ", "time 7 s  "]
    assert "\x1b" not in "".join(lines)


def test_on_a_terminal_a_panel_is_redrawn(meter):
    seen = io.StringIO()
    with open_screen(Console(file=seen, force_terminal=True, width=80)) as screen:
        screen.show(meter)
        screen.say("actor-0 (pid 7) [was] lost")
        screen.show(meter)
    assert seen.getvalue().count("steps in") >= 2
    assert "actor-0 (pid 7) [was] lost" in seen.getvalue()
    assert seen.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in seen.getvalue()
