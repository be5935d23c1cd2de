"""What a shard has to offer: the weight that its share of a sample is in proportion to.

For a sampler that draws uniformly this is the number of windows, for one that draws by weight the
sum of the windows' weights. Then "a shard by its offer, and a window within it by the shard's own
sampler" is the same draw as one over all windows of all shards.

The total (of transitions, or of the sampler's tree) is there at any moment. Which share of it is on
offer depends on the window's length: the last transitions of a sequence begin no whole window. That
share is counted, in O(sequences) under the lock, and moves slowly; so it is counted again once the
table has changed, but only so often that it takes one part in ``_REST`` of the time. What is
wrong with it is what has changed within that time, some milliseconds.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import numpy as np

from shmtable.errors import SpecError
from shmtable.index import fields as f
from shmtable.integrations.ray.values import Offer
from shmtable.protocols.core import Core
from shmtable.strategies import (
    EndAlignedSampleStrategy,
    PrioritizedSampleStrategy,
    SampleStrategy,
    UniformSampleStrategy,
    WeightedSampleStrategy,
)
from shmtable.types import SamplePoints, rows_of

_REST = 50


def refuse_other(sampler: object) -> None:
    """Refuse a sampler whose draws cannot be split over shards.

    Raises:
        SpecError: it is one.
    """
    if not isinstance(innermost(sampler), (UniformSampleStrategy, WeightedSampleStrategy)):
        raise SpecError(
            f"sampler is a {type(sampler).__name__}; shards are drawn from in proportion to what "
            "they offer, which is known of UniformSampleStrategy, PrioritizedSampleStrategy, "
            "CoverageSampleStrategy, and EndAlignedSampleStrategy of one of these"
        )


def innermost(sampler: Any) -> Any:
    """The sampler that draws: itself, or the one that it aligns."""
    return sampler.members[0] if isinstance(sampler, EndAlignedSampleStrategy) else sampler


def make_absolute(sampler: SampleStrategy) -> None:
    """Let the points that a sampler of this process draws have the windows' own weights as chances.

    A sampler gives chances up to a factor that is the table's at the moment of the draw. Here this
    factor is taken out, in the same locked section, so that chances of several tables compare.
    """
    draw, inner = sampler.sample, innermost(sampler)

    def absolute(count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        points = draw(count, sequence_length, random)
        if points.chances is not None and len(points):
            least = least_of(inner)
            points.chances *= inner._tree.total(inner._size()) if least == math.inf else least
        return points

    # Of this one object: it stays what it is to whoever asks for its class and settings.
    vars(sampler)["sample"] = absolute


def least_of(inner: Any) -> float:
    """The lowest weight in the table where the sampler keeps it, else infinity; under the lock."""
    tree = getattr(inner, "_least", None)
    return math.inf if tree is None else float(tree.least(inner._size()))


class Offers:
    """The offers of one table. Any thread may ask.

    Args:
        core: the table.
        sampler: its own.
    """

    def __init__(self, core: Core, sampler: SampleStrategy) -> None:
        self._core = core
        self._inner = innermost(sampler)
        self._by_weight = isinstance(self._inner, WeightedSampleStrategy)
        self._shares: dict[int, tuple[object, float, float]] = {}
        self._counting = threading.Lock()

    def now(self, steps: int) -> Offer:
        """The offer for windows of ``steps`` transitions."""
        total, mark, offer = self._core.guard.run(self._total_locked)
        weight = total * self._share(steps, mark) if total > 0 else 0.0
        if weight > 0:
            return offer._replace(weight=weight)
        # What is remembered as the longest need not be there any more, and this is to be told.
        return offer._replace(longest=self._core.guard.run(self._longest_locked))

    def forget(self) -> None:
        """Count anew: priorities have been changed, which nothing else tells."""
        self._shares.clear()

    def _total_locked(self) -> tuple[float, object, Offer]:
        view, inner, words = self._core.view, self._inner, self._core.arena.words
        total = inner._tree.total(inner._size()) if self._by_weight else view.live_steps
        beta = inner.beta if isinstance(inner, PrioritizedSampleStrategy) else None
        least = least_of(inner) if view.live_count else math.inf
        longest = view.longest if view.live_count else 0
        mark: object = (words[f.SEQUENCE_TOTAL], view.live_count, view.live_steps, view.longest)
        if self._by_weight:
            mark = object()  # no count tells that a weight has changed
        offer = Offer(self._core.arena.id, 0.0, view.live_steps, longest, beta, least)
        return float(total), mark, offer

    def _longest_locked(self) -> int:
        view = self._core.view
        return int(view.slots[view.live_slots(), f.LENGTH].max(initial=0))

    def _share(self, steps: int, mark: object) -> float:
        """What part of the total is on offer, 0 to 1."""
        with self._counting:
            known = self._shares.get(steps)
            now = time.monotonic()
            if known is not None and (known[0] == mark or now < known[2]):
                return known[1]
            if len(self._shares) > 64:
                self._shares.clear()  # nobody uses so many lengths for long
            share = self._core.guard.run(self._share_locked, steps)
            took = time.monotonic() - now
            self._shares[steps] = mark, share, now + took * _REST
            return share

    def _share_locked(self, steps: int) -> float:
        view, inner = self._core.view, self._inner
        slots = view.live_slots()
        counts = view.window_counts(slots, steps)
        if not self._by_weight:
            return float(counts.sum() / max(view.live_steps, 1))
        leaves, total = inner._tree.leaves, inner._tree.total(inner._size())
        if inner._per_slot:
            missing = float(leaves[slots[counts == 0]].sum())
        elif steps == 1:
            return 1.0
        else:
            records = view.slots.take(slots, axis=0)
            rows = rows_of(records[:, f.START] + counts, records[:, f.LENGTH] - counts)
            missing = float(leaves[rows].sum())
        if counts.max(initial=0) == 0 or total <= 0:
            return 0.0
        return max(1.0 - missing / float(total), 0.0)
