"""Which shard gives which window, and one batch made of their answers. Nothing here knows Ray.

What is wanted: the shard of each window drawn by itself, with chances p in proportion to the
shards' offers. But what they offer is only known with their answers, and how many windows to ask
each for must be known before. So each window's shard is first drawn with chances q, from what was
offered last time (any q will do: 1/n at first). When the answers bring p, a window that was asked
of shard i is kept with chance min(1, p_i / q_i), and the others are drawn anew with chances in
proportion to max(p - q, 0). That is the coupling of two distributions that agree most often, and
its outcome is distributed as p exactly, window by window, independently: P(i) = q_i min(1, p_i/q_i)
+ (1 - sum min(p, q)) max(p_i - q_i, 0) / sum max(p - q, 0) = min(p_i, q_i) + max(p_i - q_i, 0).

A shard that does not answer has p = 0, so its windows are taken from the others by the same rule.

What stays: the offers of one batch are of moments some milliseconds apart, and those drawn anew
come from a shard as it is one round later. The error is of the order of what is added and ejected
in that time, relative to what is there, and does not add up over batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shmtable.columns import Column
from shmtable.integrations.ray.values import Offer, Part, ShardedPoints, sharded
from shmtable.strategies.priorities import importance_weights
from shmtable.types import Int64Array, SamplePoints, SampleResult

Float64Array = npt.NDArray[np.float64]


def chances(weights: Sequence[float]) -> Float64Array | None:
    """Float64 [n] that add up to 1, in proportion to the weights; None where all are 0."""
    array = np.array(weights, np.float64)
    total = array.sum()
    return array / total if total > 0 else None


def guessed(weights: Sequence[float | None]) -> Float64Array:
    """Chances from what is known: a shard that nothing is known of counts as an average one."""
    known = [weight for weight in weights if weight is not None]
    average = sum(known) / len(known) if any(known) else 1.0
    found = chances([average if weight is None else weight for weight in weights])
    return np.full(len(weights), 1 / len(weights)) if found is None else found


def drawn(count: int, chances: Float64Array, random: np.random.Generator) -> Int64Array:
    """int64 [count], each window's shard."""
    ends = chances.cumsum()
    places: Int64Array = ends.searchsorted(random.random(count) * ends[-1], side="right")
    # Rounding may lead beyond the last shard that has a chance.
    last: int = chances.nonzero()[0][-1]
    return np.minimum(places, last, out=places)


def redrawn(
    shards: Int64Array, asked: Float64Array, right: Float64Array, random: np.random.Generator
) -> tuple[Int64Array, Int64Array]:
    """Which windows must come from another shard than was asked, and from which.

    Args:
        shards: int64 [B], each window's shard, drawn with chances ``asked``.
        asked, right: float64 [n], q and p of the module's text.
        random: the generator.

    Returns:
        The windows (int64 [k]) and their new shards (int64 [k]).
    """
    keep = np.minimum(right, asked) / np.where(asked > 0, asked, 1.0)
    moved: Int64Array = (random.random(len(shards)) >= keep[shards]).nonzero()[0]
    if not len(moved):
        return moved, moved
    short = np.maximum(right - asked, 0)
    if short.sum() <= 0:  # equal but for rounding
        return moved[:0], moved[:0]
    return moved, drawn(len(moved), short, random)


class Batch:
    """One batch in the making.

    Args:
        count: windows (B).
        columns: the table's, by name, for their types.
    """

    def __init__(self, count: int, columns: Mapping[str, Column]) -> None:
        self._count = count
        self._columns = columns
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._points = np.empty((6, count), np.int64)
        self._chances: Float64Array | None = None
        self._sources = np.empty(count, np.int64)
        self._tables: dict[int, int] = {}
        self._offers: list[Offer] = []

    def put(self, places: Int64Array, part: Part) -> None:
        """Copy the first windows of a shard's answer to these places, int64 [k]; k up to its B."""
        self._offers.append(part.offer)
        count, given = len(places), len(part)
        if not count:
            return
        for name, rows in part.columns.items():
            each = len(rows) // given
            target = self._arrays.get(name)
            if target is None:
                shape = (self._count, each, *rows.shape[1:])
                target = self._arrays[name] = np.empty(shape, rows.dtype)
            target[places] = rows.reshape(given, each, *rows.shape[1:])[:count]
        self._points[:, places] = part.points[:, :count]
        if part.chances is not None:
            if self._chances is None:
                self._chances = np.empty(self._count)
            self._chances[places] = part.chances[:count]
        table = part.offer.table
        self._sources[places] = self._tables.setdefault(table, len(self._tables))

    def result(self, first: int = 0, last: int | None = None) -> SampleResult:
        """The sample, once every place has been put; or its windows from ``first`` to ``last``.

        Windows are drawn independently, so any part of them is a sample of its own.
        """
        last = self._count if last is None else last
        points = self._found_points().at(slice(first, last))
        beta = max((offer.beta for offer in self._offers if offer.beta is not None), default=None)
        weights = None
        if beta is not None and points.chances is not None:
            least = min(offer.least for offer in self._offers)
            weights = importance_weights(points, beta, least)
        columns = {
            name: self._tensor(name, array[first:last]) for name, array in self._arrays.items()
        }
        return SampleResult(columns, points=points, weights=weights)

    def results(self, count: int) -> Iterator[SampleResult]:
        """Samples of ``count`` windows each, one after the other."""
        return (self.result(first, first + count) for first in range(0, self._count, count))

    def _found_points(self) -> ShardedPoints:
        fields: list[Any] = [*self._points, self._chances]
        points = SamplePoints(*fields)
        return sharded(points, self._sources, tuple(self._tables))

    def _tensor(self, name: str, array: np.ndarray[Any, Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array.reshape(-1, *array.shape[2:]))
        column = self._columns.get(name)
        return tensor if column is None else tensor.view(column.dtype.torch)
