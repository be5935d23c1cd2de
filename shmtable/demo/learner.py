"""What the parent process does: sample, train, evaluate, until the policy is good enough."""

from __future__ import annotations

from enum import Enum

import numpy as np

from shmtable import ArrayMemoryTable
from shmtable.crew import Crew, Death
from shmtable.demo.agent import Agent, greedy
from shmtable.demo.environment import evaluate
from shmtable.demo.meter import Meter
from shmtable.demo.options import Options
from shmtable.demo.pace import Pace
from shmtable.demo.progress import Screen

NAP_S = 0.05
SHOW_EVERY_S = 0.5
DATA_WAIT_S = 10.0


class Outcome(Enum):
    """How a run ended: the exit code and the words for it."""

    SOLVED = 0, "solved"
    TIME_UP = 1, "not solved: the time was up"
    NO_ACTORS = 1, "not solved: no actor was left"
    INTERRUPTED = 130, "not solved: interrupted"

    def __init__(self, exit_code: int, text: str) -> None:
        self.exit_code = exit_code
        self.text = text


class Learner:
    """Trains the agent with what the crew puts into the table."""

    def __init__(
        self,
        options: Options,
        table: ArrayMemoryTable,
        agent: Agent,
        pace: Pace,
        crew: Crew,
        meter: Meter,
        screen: Screen,
    ) -> None:
        self.options = options
        self.table = table
        self.agent = agent
        self.pace = pace
        self.crew = crew
        self.meter = meter
        self.screen = screen
        # Start states that no actor has seen: they draw from streams 0 to actors - 1.
        self._evaluation_seeds = np.random.default_rng([options.seed, options.actors])
        self._next_show_s = 0.0

    def train(self) -> Outcome:
        """Works until the policy solves the task, or nothing more can come of it."""
        while self.crew and self.meter.elapsed_s() < self.options.time_limit:
            stats = self.table.stats()
            ready = self.pace.learner_may_sample(stats)
            self.hear_actors(0.0 if ready else NAP_S)
            self.show_progress()
            if ready:
                self.learn()
                if self.meter.updates % self.options.evaluate_every == 0 and self.is_good_enough():
                    return Outcome.SOLVED
        return Outcome.TIME_UP if self.crew else Outcome.NO_ACTORS

    def learn(self) -> None:
        """One sample, one gradient step."""
        with self.meter.timing("sampling"):
            # Windows of one transition each. Waits only if the table has just been emptied to
            # make room for one very long episode.
            batch = self.table.sample(self.options.batch_size, 1, timeout_s=DATA_WAIT_S)
        with self.meter.timing("training"):
            self.agent.update(batch)
        self.meter.updates += 1

    def is_good_enough(self) -> bool:
        """Whether the greedy policy, without any random action, reaches the threshold."""
        with self.meter.timing("evaluating"):
            mean_return = evaluate(
                lambda seen: greedy(self.agent.network, seen),
                self.options.evaluation_episodes,
                seed=int(self._evaluation_seeds.integers(2**31)),
            )
        self.meter.evaluations.append((self.table.stats().transitions_added, mean_return))
        return mean_return >= self.options.threshold

    def hear_actors(self, wait_s: float) -> None:
        """Notes what the actors report, waiting for it at most ``wait_s``."""
        with self.meter.timing("waiting"):
            heard = self.crew.listen(wait_s)
        for message in heard:
            if isinstance(message, Death):
                left = f"{len(self.crew)} of {self.options.actors}"
                self.screen.say(f"{message}; {left} actors are left")
            else:
                self.meter.add_episode(message.total_reward, message.epsilon)

    def show_progress(self) -> None:
        """Shows the run as it stands, every now and then."""
        if self.meter.elapsed_s() >= self._next_show_s:
            with self.meter.timing("showing"):
                self.meter.add_moment(self.table.stats())
                self.screen.show(self.meter)
            self._next_show_s = self.meter.elapsed_s() + SHOW_EVERY_S
