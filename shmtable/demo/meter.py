"""Everything that is counted and timed during a run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from shmtable.types import Stats

RECENT_EPISODES = 20
RECENT_MOMENTS = 8


@dataclass(frozen=True)
class Moment:
    """The run as it stood at one time; times in seconds since the start."""

    elapsed_s: float
    transitions_added: int
    windows_sampled: int
    fill: float
    episode_return: float

    @property
    def replay_ratio(self) -> float:
        """Transitions sampled for every one added so far."""
        return self.windows_sampled / max(self.transitions_added, 1)


class Meter:
    """Counters, stopwatches and the history of a run.

    Attributes:
        updates: gradient steps made.
        episodes: episodes reported by the actors.
        epsilon: share of random actions in the newest of them.
        sample_s: seconds each call of ``table.sample`` took.
        spent_s: seconds the learner spent, by what it did.
        history: moments, oldest first.
        evaluations: (transitions added, mean return), oldest first.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.updates = 0
        self.episodes = 0
        self.epsilon = 1.0
        self.sample_s: list[float] = []
        self.spent_s: dict[str, float] = {}
        self.history: list[Moment] = []
        self.evaluations: list[tuple[int, float]] = []
        self._clock = clock
        self._started = clock()
        self._returns: deque[float] = deque(maxlen=RECENT_EPISODES)

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Adds the time the block takes to what is spent on ``what``."""
        begin = self._clock()
        try:
            yield
        finally:
            took = self._clock() - begin
            self.spent_s[what] = self.spent_s.get(what, 0.0) + took
            if what == "sampling":
                self.sample_s.append(took)

    def add_episode(self, total_reward: float, epsilon: float) -> None:
        """Notes an episode that an actor has finished."""
        self.episodes += 1
        self.epsilon = epsilon
        self._returns.append(total_reward)

    def add_moment(self, stats: Stats) -> Moment:
        """Notes how the run stands now."""
        moment = Moment(
            elapsed_s=self.elapsed_s(),
            transitions_added=stats.transitions_added,
            windows_sampled=stats.windows_sampled,
            fill=stats.fill,
            episode_return=float(np.mean(self._returns)) if self._returns else 0.0,
        )
        self.history.append(moment)
        return moment

    def rates(self) -> tuple[float, float]:
        """Transitions per second going in and coming out, over the last few moments."""
        if len(self.history) < 2:
            return 0.0, 0.0
        first, last = self.history[-RECENT_MOMENTS:][0], self.history[-1]
        seconds = max(last.elapsed_s - first.elapsed_s, 1e-9)
        return (
            (last.transitions_added - first.transitions_added) / seconds,
            (last.windows_sampled - first.windows_sampled) / seconds,
        )

    def latency_s(self, percent: float) -> float:
        """The time that so many percent of the samples stayed within; 0.0 without samples."""
        return float(np.percentile(self.sample_s, percent)) if self.sample_s else 0.0

    def share(self, what: str) -> float:
        """Part of the learner's time that went into ``what``, 0 to 1."""
        return self.spent_s.get(what, 0.0) / max(sum(self.spent_s.values()), 1e-9)
