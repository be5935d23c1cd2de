"""An actor on a thread of its own, with a real table and a pipe to the test."""

from __future__ import annotations

import threading
from multiprocessing import Pipe

import numpy as np
import pytest
import torch

from shmtable.demo.actor import ActorPlan, EpisodeReport, act, choose, tell, wait_for_turn
from shmtable.demo.agent import make_network
from shmtable.demo.options import parse
from shmtable.demo.pace import Exploration, Pace
from shmtable.demo.replay import make_table

DEADLINE_S = 60.0


def plan(warmup: int) -> ActorPlan:
    """One of three actors, whose exploration is over after 100 transitions."""
    return ActorPlan(3, 0, Pace(1.0, warmup, lead=0), Exploration(1.0, 0.0, 100))


def test_it_plays_until_the_learner_hangs_up():
    ours, theirs = Pipe()
    with make_table(parse([])) as table:
        arguments = (1, theirs, table, make_network().share_memory(), plan(warmup=10**6))
        actor = threading.Thread(target=act, args=arguments)
        actor.start()
        reports = [ours.recv() for _ in range(30)]
        ours.close()
        actor.join(DEADLINE_S)
        assert not actor.is_alive()
        assert all(identity % 3 == 1 for identity in table.identities().tolist())
        assert table.stats().sequences_added >= 30
        assert sum(report.steps for report in reports) <= table.size()
        assert table.check() == []
    assert reports[0].epsilon == 1.0
    assert reports[-1].epsilon == 0.0
    theirs.close()


def test_it_waits_while_it_is_ahead_and_goes_on_when_the_learner_has_caught_up():
    ours, theirs = Pipe()
    with make_table(parse([])) as table:
        arguments = (0, theirs, table, make_network().share_memory(), plan(warmup=1))
        actor = threading.Thread(target=act, args=arguments)
        actor.start()
        assert ours.recv().steps > 1
        # Ahead by one episode, of which nothing has been sampled.
        assert not ours.poll(0.2)
        table.sample(table.size(), 1)
        assert ours.poll(DEADLINE_S)
        ours.close()
        actor.join(DEADLINE_S)
        assert not actor.is_alive()
    theirs.close()


def test_hanging_up_ends_the_wait():
    ours, theirs = Pipe()
    with make_table(parse([])) as table:
        assert wait_for_turn(theirs, table, Pace(1.0, 1, 0)) == table.stats()
        ours.close()
        assert wait_for_turn(theirs, table, Pace(1.0, 1, 0)) is None
    assert not tell(theirs, EpisodeReport(1, 1.0, 0.0))
    theirs.close()


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_random_actions_are_as_frequent_as_asked(epsilon):
    network = make_network()
    with torch.no_grad():
        network[-1].bias.copy_(torch.tensor([-100.0, 100.0]))  # greedily always action 1
    random = np.random.default_rng(0)
    observation = np.zeros(4, np.float32)
    lefts = sum(choose(network, random, epsilon, observation) == 0 for _ in range(2000))
    assert lefts / 2000 == pytest.approx(epsilon / 2, abs=0.04)
