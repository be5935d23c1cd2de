"""The learner on its own: a real table and agent, and a crew that only says what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from shmtable import ArrayMemoryTable
from shmtable.crew import Death
from shmtable.demo import learner as learner_module
from shmtable.demo.actor import EpisodeReport
from shmtable.demo.agent import Agent
from shmtable.demo.environment import pack
from shmtable.demo.learner import Learner, Outcome
from shmtable.demo.meter import Meter
from shmtable.demo.options import parse
from shmtable.demo.pace import Pace
from shmtable.demo.replay import make_table

LOST = Death("actor-0 (pid 7)", 3)


class ScriptedCrew:
    """Says one thing after the other; a Death makes it smaller."""

    def __init__(self, size: int, *script: Any) -> None:
        self.size = size
        self.script = list(script)
        self.waits: list[float] = []

    def __len__(self) -> int:
        return self.size

    def listen(self, wait_s: float) -> list[Any]:
        self.waits.append(wait_s)
        heard = [self.script.pop(0)] if self.script else []
        self.size -= sum(isinstance(said, Death) for said in heard)
        return heard


class Notes:
    """A screen that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown = 0

    def show(self, meter: Meter) -> None:
        self.shown += 1

    def say(self, text: str) -> None:
        self.said.append(text)


def ticking() -> Callable[[], float]:
    """A clock that goes on by 10 ms whenever it is looked at."""
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 0.01
        return now_s

    return clock


@pytest.fixture
def table() -> Iterator[ArrayMemoryTable]:
    """110 transitions in eleven episodes."""
    with make_table(parse([])) as table:
        for identity in range(11):
            observations = [np.full(4, step, np.float32) for step in range(11)]
            table.add_sequence(identity, pack(observations, [0] * 10, [1.0] * 10, terminated=True))
        yield table
        assert table.check() == []


def make_learner(table: ArrayMemoryTable, crew: ScriptedCrew, *arguments: str) -> Learner:
    """A learner that may sample 40 times 8 transitions of the table."""
    options = parse(["--time-limit", "10", "--batch-size", "8", *arguments])
    pace = Pace(replay_ratio=32.0, warmup=100, lead=0)
    return Learner(options, table, Agent(1e-3), pace, crew, Meter(ticking()), Notes())


def test_it_learns_at_the_pace_and_then_waits_until_the_time_is_up(table):
    crew = ScriptedCrew(2)
    learner = make_learner(table, crew)
    assert learner.train() is Outcome.TIME_UP
    assert learner.meter.updates == 32 * 10 / 8
    assert table.stats().windows_sampled == 32 * 10
    assert len(learner.meter.sample_s) == learner.meter.updates
    # It only looked while there was something to do, and waited for the actors afterwards.
    assert crew.waits[:40] == [0.0] * 40
    assert set(crew.waits[40:]) == {learner_module.NAP_S}
    assert learner.screen.shown > 1


def test_it_stops_when_the_policy_is_good_enough(table, monkeypatch):
    returns = iter([100.0, 474.9, 475.0])
    seeds = []

    def evaluate(choose: object, episodes: int, seed: int) -> float:
        seeds.append(seed)
        return next(returns)

    monkeypatch.setattr(learner_module, "evaluate", evaluate)
    learner = make_learner(table, ScriptedCrew(2), "--evaluate-every", "5")
    assert learner.train() is Outcome.SOLVED
    assert learner.meter.updates == 15
    assert learner.meter.evaluations == [(110, 100.0), (110, 474.9), (110, 475.0)]
    assert len(set(seeds)) == 3  # fresh start states each time


def test_it_goes_on_with_the_actors_that_are_left(table):
    report = EpisodeReport(steps=10, total_reward=10.0, epsilon=0.5)
    learner = make_learner(table, ScriptedCrew(2, report, LOST, report))
    assert learner.train() is Outcome.TIME_UP
    assert learner.meter.episodes == 2
    assert learner.meter.updates == 40
    assert learner.screen.said == ["actor-0 (pid 7) ended with exit code 3; 1 of 2 actors are left"]


def test_without_any_actor_it_ends(table):
    learner = make_learner(table, ScriptedCrew(2, LOST, LOST))
    assert learner.train() is Outcome.NO_ACTORS
    assert learner.screen.said[-1].endswith("; 0 of 2 actors are left")


def test_exit_codes():
    codes = {outcome.name: outcome.exit_code for outcome in Outcome}
    assert codes == {"SOLVED": 0, "TIME_UP": 1, "NO_ACTORS": 1, "INTERRUPTED": 130}
