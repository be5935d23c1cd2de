"""Actors and learner hold each other to the replay ratio, and never both wait."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmtable.demo.pace import Exploration, Pace
from shmtable.types import Stats

PACE = Pace(replay_ratio=8.0, warmup=100, lead=50)


def stats(added: int, sampled: int) -> Stats:
    """Counts of a table in which only two matter."""
    zeros = {field.name: 0 for field in dataclasses.fields(Stats)}
    return Stats(**{**zeros, "transitions_added": added, "windows_sampled": sampled})


def test_learner_waits_for_the_warm_up():
    assert not PACE.learner_may_sample(stats(added=100, sampled=0))
    assert PACE.learner_may_sample(stats(added=101, sampled=0))


def test_learner_waits_when_it_has_used_what_is_there():
    assert PACE.learner_may_sample(stats(added=110, sampled=79))
    assert not PACE.learner_may_sample(stats(added=110, sampled=80))


def test_actors_wait_when_they_are_too_far_ahead():
    assert PACE.actor_may_play(stats(added=150, sampled=0))
    assert not PACE.actor_may_play(stats(added=151, sampled=0))
    assert PACE.actor_may_play(stats(added=151, sampled=8))


@given(
    st.floats(0.01, 1000),
    st.integers(1, 10_000),
    st.integers(1, 1000),
    st.integers(0, 10**7),
    st.integers(0, 10**9),
)
def test_never_do_both_wait(ratio, warmup, lead, added, sampled):
    pace = Pace(ratio, warmup, lead)
    now = stats(added, sampled)
    assert pace.learner_may_sample(now) or pace.actor_may_play(now)


@pytest.mark.parametrize("learner_speed", [1, 7, 1000])
def test_ratio_does_not_depend_on_who_is_faster(learner_speed):
    added = sampled = 0
    for _ in range(3000):
        if PACE.actor_may_play(stats(added, sampled)):
            added += 20
        for _ in range(learner_speed):
            if PACE.learner_may_sample(stats(added, sampled)):
                sampled += 16
    assert added > 1000
    assert sampled / (added - PACE.warmup) <= PACE.replay_ratio + 0.1
    assert sampled / (added - PACE.warmup - PACE.lead - 20) >= PACE.replay_ratio - 0.1


def test_exploration_falls_and_stays():
    exploration = Exploration(start=1.0, end=0.1, transitions=1000)
    assert exploration.epsilon(0) == 1.0
    assert exploration.epsilon(500) == pytest.approx(0.55)
    assert exploration.epsilon(1000) == pytest.approx(0.1)
    assert exploration.epsilon(10**6) == pytest.approx(0.1)
