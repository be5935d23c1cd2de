"""Keeps actors and learner in step, so that what is learned does not depend on the machine.

Left alone, a fast learner would train on the same few episodes again and again, and fast actors
would push episodes out of the table before they were used. Both therefore look at what the
table itself counts, transitions added and transitions sampled, and wait while they are ahead.
No message between them is needed, and an actor that dies holds nobody up.
"""

from __future__ import annotations

from dataclasses import dataclass

from shmtable.types import Stats


@dataclass(frozen=True)
class Pace:
    """A replay ratio and how far either side may depart from it.

    Attributes:
        replay_ratio: transitions sampled for every transition added after the warm-up.
        warmup: transitions added before anything is sampled.
        lead: transitions the actors may be ahead, so that they play while the learner learns.
    """

    replay_ratio: float
    warmup: int
    lead: int

    def learner_may_sample(self, stats: Stats) -> bool:
        """Whether there is something new enough to learn from."""
        due = self.replay_ratio * (stats.transitions_added - self.warmup)
        return stats.windows_sampled < due

    def actor_may_play(self, stats: Stats) -> bool:
        """Whether the learner keeps up; when this is False, the learner may sample."""
        due = self.replay_ratio * (stats.transitions_added - self.warmup - self.lead)
        return stats.windows_sampled >= due


@dataclass(frozen=True)
class Exploration:
    """Share of random actions, falling in a straight line.

    It follows the transitions added by all actors together, not time or a count of its own:
    so it is the same on any machine and with any number of actors.
    """

    start: float
    end: float
    transitions: int

    def epsilon(self, transitions_added: int) -> float:
        """Probability of a random action, 0 to 1."""
        done = min(transitions_added / self.transitions, 1.0)
        return self.start + done * (self.end - self.start)
