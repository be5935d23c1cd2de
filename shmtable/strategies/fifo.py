"""First in, first out; last in, first out: by the order in which sequences were committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmtable.index import IndexView
from shmtable.index import fields as f
from shmtable.strategies.base import EjectionStrategy, SampleStrategy
from shmtable.types import Int64Array, SamplePoints

_Following = Callable[[int], int]


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

    _first = "oldest"

    def __init__(self, per_episode: bool = True, random_offset: bool = True) -> None:
        self._per_episode = per_episode
        self._random_offset = random_offset or per_episode
        self.pass_order = self._first if per_episode else None

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
            offsets = self._offsets(slots, nths, sequence_length)
        return self.view.points(slots, offsets)

    def _offsets(self, slots: Int64Array, nths: Int64Array, steps: int) -> Int64Array:
        """Where the nth window begins that is taken of a sequence."""
        return nths * steps

    def _pass(self, count: int, steps: int) -> tuple[Int64Array, Int64Array]:
        """Up to ``count`` windows of one pass: their slots, and which of the slot's each is."""
        view = self.view
        slots: list[int] = []
        windows: list[int] = []
        total = 0
        slot, following = self._order()
        while slot and total < count:
            length = view.length(slot)
            if length >= steps or view.short:
                slots.append(slot)
                windows.append(1 if self._per_episode else max(length // steps, 1))
                total += windows[-1]
            slot = following(slot)
        counts = np.array(windows, np.int64)
        firsts = np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(np.array(slots, np.int64), counts), np.arange(total) - firsts

    def _order(self) -> tuple[int, _Following]:
        """The slot to begin with, and what follows another."""
        return self.view.oldest(), self.view.newer


class LifoSampleStrategy(FifoSampleStrategy):
    """Samples from the newest sequence backwards, starting over with each call.

    Like ``FifoSampleStrategy`` in reverse: the windows taken of one sequence without a random
    offset follow each other backwards from its end.

    Args:
        per_episode: take each sequence once in a pass. Otherwise a sequence gives as many windows
            as fit into it one after the other, before the next one's turn.
        random_offset: each window starts at a random offset of its sequence; otherwise windows
            follow each other without overlap. Assumed true with ``per_episode``.
    """

    _first = "newest"

    def _offsets(self, slots: Int64Array, nths: Int64Array, steps: int) -> Int64Array:
        offsets: Int64Array = np.maximum(self.view.slots[slots, f.LENGTH] - (nths + 1) * steps, 0)
        return offsets

    def _order(self) -> tuple[int, _Following]:
        return self.view.newest(), self.view.older


class FifoEjectionStrategy(EjectionStrategy):
    """Removes the oldest sequences first; O(sequences removed)."""

    def sample(self, count: int, random: np.random.Generator) -> list[int]:
        """See the class."""
        return _ejected(self.view, count, self.view.oldest(), self.view.newer)


class LifoEjectionStrategy(EjectionStrategy):
    """Removes the newest sequences first; O(sequences removed)."""

    def sample(self, count: int, random: np.random.Generator) -> list[int]:
        """See the class."""
        return _ejected(self.view, count, self.view.newest(), self.view.older)


def _ejected(view: IndexView, count: int, slot: int, following: _Following) -> list[int]:
    """From ``slot`` on, as many as it takes."""
    chosen: list[int] = []
    freed = 0
    while freed < count:
        chosen.append(slot)
        freed += view.length(slot)
        slot = following(slot)
    return chosen
