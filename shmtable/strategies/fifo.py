"""First in, first out: by the order in which sequences were committed."""

from __future__ import annotations

from typing import Any

import numpy as np

from shmtable.strategies.base import EjectionStrategy, SampleStrategy
from shmtable.types import Int64Array, SamplePoints


class FifoSampleStrategy(SampleStrategy):
    """Samples from the oldest sequence onwards, starting over with each call.

    A call passes over the sequences in order of their commit and begins again with the oldest
    when it reaches the newest.

    Args:
        per_episode: take each sequence once in a pass. Otherwise a sequence gives as many windows
            as fit into it one after the other, before the next one's turn.
        random_offset: each window starts at a random offset of its sequence; otherwise windows
            follow each other without overlap. Assumed true with ``per_episode``.
    """

    def __init__(self, per_episode: bool = True, random_offset: bool = True) -> None:
        self._per_episode = per_episode
        self._random_offset = random_offset or per_episode
        self.pass_order = "oldest" if per_episode else None

    def config(self) -> dict[str, Any]:
        """See ``Strategy``."""
        return {"per_episode": self._per_episode, "random_offset": self._random_offset}

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        """See the class; O(count), and O(sequences) when many are too short."""
        slots, nths = self._pass(count, sequence_length)
        if not len(slots):
            return self.view.points(slots, slots)
        # ``resize`` starts over with the oldest as often as it takes.
        slots, nths = np.resize(slots, count), np.resize(nths, count)
        if self._random_offset:
            offsets = random.integers(0, self.view.window_counts(slots, sequence_length))
        else:
            offsets = nths * sequence_length
        return self.view.points(slots, offsets)

    def _pass(self, count: int, steps: int) -> tuple[Int64Array, Int64Array]:
        """Up to ``count`` windows of one pass: their slots, and which of the slot's each is."""
        view = self.view
        slots: list[int] = []
        windows: list[int] = []
        total = 0
        slot = view.oldest()
        while slot and total < count:
            length = view.length(slot)
            if length >= steps or view.short:
                slots.append(slot)
                windows.append(1 if self._per_episode else max(length // steps, 1))
                total += windows[-1]
            slot = view.newer(slot)
        counts = np.array(windows, np.int64)
        firsts = np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(np.array(slots, np.int64), counts), np.arange(total) - firsts


class FifoEjectionStrategy(EjectionStrategy):
    """Removes the oldest sequences first; O(sequences removed)."""

    def sample(self, count: int, random: np.random.Generator) -> Int64Array:
        """See the class."""
        view = self.view
        chosen: list[int] = []
        freed = 0
        slot = view.oldest()
        while freed < count:
            chosen.append(slot)
            freed += view.length(slot)
            slot = view.newer(slot)
        return np.array(chosen, np.int64)
