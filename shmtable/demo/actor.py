"""What an actor process does: play, add the episode to the table, tell how it went."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import nn

from shmtable import ArrayMemoryTable
from shmtable.demo.agent import greedy
from shmtable.demo.environment import ACTIONS, Observation, make_environment, play
from shmtable.demo.pace import Exploration, Pace
from shmtable.types import Stats

NAP_S = 0.005


@dataclass(frozen=True)
class EpisodeReport:
    """What the learner shows of an episode; the episode itself goes through the table."""

    steps: int
    total_reward: float
    epsilon: float


@dataclass(frozen=True)
class ActorPlan:
    """What every actor is told: how many there are, the run's seed, and when to play how."""

    actors: int
    seed: int
    pace: Pace
    exploration: Exploration


def act(
    index: int,
    line: Connection[EpisodeReport, None],
    table: ArrayMemoryTable,
    network: nn.Module,
    plan: ActorPlan,
) -> None:
    """Plays until the learner hangs up; runs in a process of its own.

    Args:
        index: which actor this is, 0 to ``plan.actors - 1``.
        line: the pipe to the learner. Reports go up; its end is the order to stop, and comes
            by itself when the learner's process dies, however it dies.
        table: the shared table; unpickling it here attached this process.
        network: the learner's current network, in shared memory.
        plan: what all actors have in common.
    """
    torch.set_num_threads(1)  # the processes share the cores; more threads get in the way
    random = np.random.default_rng([plan.seed, index])
    environment = make_environment()
    environment.reset(seed=int(random.integers(2**31)))
    # Every sequence in a table has its own identity: actors count in steps to stay apart.
    for identity in itertools.count(index, plan.actors):
        stats = wait_for_turn(line, table, plan.pace)
        if stats is None:
            break
        epsilon = plan.exploration.epsilon(stats.transitions_added)
        episode = play(environment, partial(choose, network, random, epsilon))
        table.add_sequence(identity, episode.sequence)
        if not tell(line, EpisodeReport(len(episode), episode.total_reward, epsilon)):
            break
    environment.close()


def wait_for_turn(
    line: Connection[EpisodeReport, None], table: ArrayMemoryTable, pace: Pace
) -> Stats | None:
    """Waits until the pace allows an episode; None when the learner has hung up."""
    nap_s = 0.0
    while not line.poll(nap_s):  # nothing is ever sent this way, so "readable" means hung up
        stats = table.stats()
        if pace.actor_may_play(stats):
            return stats
        nap_s = NAP_S
    return None


def choose(
    network: nn.Module, random: np.random.Generator, epsilon: float, observation: Observation
) -> int:
    """An action: a random one with probability epsilon, else the one with the highest value."""
    if random.random() < epsilon:
        return int(random.integers(ACTIONS))
    return int(greedy(network, observation))


def tell(line: Connection[EpisodeReport, None], report: EpisodeReport) -> bool:
    """Sends a report; False when nobody listens any more."""
    try:
        line.send(report)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True
