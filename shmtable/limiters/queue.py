"""Every sequence is handed out once, and then it is gone.

All that these decide by is what is in the table, so nothing that a crash could leave wrong. The
sides cannot wait for each other for ever as long as the table takes as many sequences as a sample
wants: ``impossible`` refuses larger samples. Where it cannot take them for another reason (they do
not fit into ``maxlen``, or are too short to be sampled) a sample says so as soon as an add waits as
well; see ``protocols.pace``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shmtable.limiters.base import Limiter, Standing, positive_integer, too_large


@dataclass(frozen=True)
class Queue(Limiter):
    """First in, first out: each sequence is sampled exactly once, and then removed.

    Adds wait while ``size`` sequences wait to be sampled, or fill ``maxlen``; nothing is ejected.
    Samples wait until there are as many sequences as windows asked for. A sequence leaves when
    its window is handed out: a reader that is killed before loses nothing.

    Needs ``FifoSampleStrategy(per_episode=True)`` as the sampler.

    Args:
        size: most sequences in the table, at most ``max_sequences``.

    Raises:
        SpecError: a value that cannot be.
    """

    size: int
    order: ClassVar[str] = "oldest"

    def __post_init__(self) -> None:
        positive_integer(self, "size", self.size)

    @property
    def unit(self) -> str:
        """See ``Limiter``."""
        return "sequence"

    def insert_amount(self, length: int) -> int:
        """See ``Limiter``; the transitions, which need room."""
        return length

    def insert_blocked(self, now: Standing, amount: int) -> str:
        """See ``Limiter``."""
        if now.live + now.writing + 1 > self.size:
            return (
                f"{now.live} sequences wait to be sampled and {now.writing} are being added, "
                f"size is {self.size}; sample, or set a limiter with a larger size"
            )
        if amount > now.room:
            return (
                f"{now.live} sequences wait to be sampled and leave room for {now.room} "
                f"transitions, {amount} are to be added; sample, or make the table with a larger "
                "maxlen"
            )
        return ""

    def sample_blocked(self, now: Standing, amount: int) -> str:
        """See ``Limiter``."""
        if now.live >= amount:
            return ""
        return f"{now.live} sequences wait to be sampled, {amount} windows are asked for; add more"

    def impossible(self, largest_insert: int, largest_sample: int) -> str:
        """See ``Limiter``."""
        if largest_sample <= self.size:
            return ""
        return (
            f"{type(self).__name__}: {largest_sample} windows are asked for, each of a sequence of "
            f"its own, and at most {self.size} sequences wait at a time; ask for fewer, or set a "
            "limiter with a larger size"
        )

    def misfit(self, maxlen: int, max_sequences: int) -> str:
        """See ``Limiter``."""
        return too_large(self, "size", self.size, "sequence", maxlen, max_sequences)


@dataclass(frozen=True)
class Stack(Queue):
    """Last in, first out: otherwise like ``Queue``.

    Needs a sampler that takes each sequence once, the newest first.

    Args:
        size: most sequences in the table, at most ``max_sequences``.

    Raises:
        SpecError: a value that cannot be.
    """

    order: ClassVar[str] = "newest"
