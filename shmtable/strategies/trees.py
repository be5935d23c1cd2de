"""Trees over the items of a shared array, so that choosing among millions takes microseconds.

A node stands for a block of ``FANOUT`` children. Whatever changes, a node is computed anew from
all its children and never corrected by a difference, so nothing drifts however long a table lives.
The nodes are derived: ``rebuild`` makes them from the leaves.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.index.layout import BLOCK
from shmtable.strategies.base import StateSpec
from shmtable.types import Int64Array

Float64Array = npt.NDArray[np.float64]

FANOUT = BLOCK
_SHIFT = FANOUT.bit_length() - 1
_EVERY = (FANOUT, FANOUT**2, FANOUT**3, FANOUT**4)
# The top of a search is a level of about so many nodes: below it every level costs a step.
_TOP_NODES = 1024

# blocks @ _PREFIXES are the sums of each block's first one, two, ... items; blocks @ _ONES those of
# all. A product of matrices takes a fifth of the time that ``cumsum`` or ``sum`` along an axis do.
_PREFIXES = np.triu(np.ones((FANOUT, FANOUT)))
_ONES = np.ones(FANOUT)
# Larger products are shared out between threads of the BLAS library. Under the lock, with other
# processes on every core, that takes milliseconds where 50 µs would do.
_PIECE = 1024


def tree_states(name: str, per: str) -> tuple[StateSpec, ...]:
    """The shared arrays of a tree: its leaves, one per slot or row, and its levels."""
    levels = (StateSpec(f"{name}/{every}", per, "float64", every, True) for every in _EVERY)
    return (StateSpec(name, per, "float64", derived=True), *levels)


@lru_cache(maxsize=8)
def _constants(count: int) -> tuple[Float64Array, Int64Array, Int64Array]:
    """What every draw of so many needs: their numbers, their blocks' places, and orders of them.

    Orders begin anywhere in the first half of the last: where one begins is left to chance, the
    rest is fixed. That takes a fifth of the time of an order drawn anew.
    """
    order = np.random.default_rng(count).permutation(count)
    return (
        np.arange(float(count)),
        np.arange(0, count * FANOUT, FANOUT),
        np.concatenate([order, order]),
    )


def _prefixes(blocks: Float64Array) -> Float64Array:
    """float64 [n, FANOUT], the sums of each block's first one, two, ... items."""
    if len(blocks) <= _PIECE:
        return blocks @ _PREFIXES
    prefixes = np.empty_like(blocks)
    for first in range(0, len(blocks), _PIECE):
        piece = slice(first, first + _PIECE)
        np.matmul(blocks[piece], _PREFIXES, out=prefixes[piece])
    return prefixes


class _Tree(ABC):
    """What trees have in common.

    Args:
        arrays: a strategy's shared arrays.
        name: of the tree, as given to ``tree_states``.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], name: str) -> None:
        self._levels: list[Float64Array] = [arrays[name]]
        self._levels += [arrays[f"{name}/{every}"] for every in _EVERY]
        self._blocks = [level.reshape(-1, FANOUT) for level in self._levels]
        self.leaves = self._levels[0]

    @abstractmethod
    def _combine(self, blocks: Float64Array) -> Float64Array:
        """float64 [n], the node above each of the blocks [n, FANOUT]."""

    def put(self, places: Int64Array, values: Any) -> None:
        """Set leaves; where a place occurs twice, the last value counts."""
        self.leaves[places] = values
        for below, level in zip(self._blocks, self._levels[1:], strict=False):
            places = places >> _SHIFT
            level[places] = self._combine(below.take(places, axis=0))

    def fill(self, first: int, last: int, values: Any) -> None:
        """Set the leaves from ``first`` up to, not including, ``last``."""
        self.leaves[first:last] = values
        for below, level in zip(self._blocks, self._levels[1:], strict=False):
            first, last = first // FANOUT, -(-last // FANOUT)
            level[first:last] = self._combine(below[first:last])

    def reset(self, size: int, places: Int64Array, values: Any) -> None:
        """Make the whole tree anew: these leaves, 0 for all others of the first ``size``."""
        self.leaves[:size] = 0
        self.leaves[places] = values
        self.rebuild(size)

    def rebuild(self, size: int) -> None:
        """Compute every level anew from the first ``size`` leaves."""
        for below, level in zip(self._blocks, self._levels[1:], strict=False):
            size = -(-size // FANOUT)
            level[:size] = self._combine(below[:size])


class SumTree(_Tree):
    """Draws leaves with chances in proportion to their values, all of them 0 or more."""

    def _combine(self, blocks: Float64Array) -> Float64Array:
        return blocks @ _ONES

    def draw(
        self, count: int, size: int, random: np.random.Generator, *, stratified: bool = False
    ) -> tuple[Int64Array, Float64Array, float]:
        """Draw leaves, with replacement.

        Args:
            count: leaves to draw, at least 1.
            size: no leaf at or above is in use.
            random: the generator.
            stratified: one from each of ``count`` equal shares of the sum, every share as likely
                as any other in each place. Chances are only right if all of them are used.
                Otherwise each leaf is drawn by itself, whatever the others are.

        Returns:
            The leaves (int64 [count], not in their own order), their values (float64 [count]), and
            the sum of all. Once in 10**13 draws rounding leads to a neighbour: a value may be 0.
        """
        depth, nodes = self._top(size)
        ends = self._levels[depth][:nodes].cumsum()
        total = float(ends[-1])
        # In order until the end: a search for rising aims takes a third of the time, as the
        # processor guesses its way, and neighbours are read one after the other.
        strata, firsts, orders = _constants(count)
        aims = random.random(count)
        if stratified:
            aims += strata
            aims *= total / count
            turn = int(random.random() * count)
            order = orders[turn : turn + count]
        else:
            aims.sort()
            aims *= total
            order = random.permutation(count)
        # Without the last end: whatever rounding does, an aim is found in some node.
        places: Int64Array = ends[:-1].searchsorted(aims, side="right")
        if depth == 0:
            places = places.take(order)
            return places, self.leaves.take(places), total
        values = self._levels[depth].take(places)
        prefixes, children = ends, places
        while True:
            aims += values
            aims -= prefixes.take(children)
            depth -= 1
            blocks = self._blocks[depth].take(places, 0)
            prefixes = _prefixes(blocks)
            children = (prefixes <= aims[:, None]).argmin(1)
            places <<= _SHIFT
            places += children
            children += firsts
            if depth == 0:
                return places.take(order), blocks.take(children.take(order)), total
            values = blocks.take(children)

    def total(self, size: int) -> float:
        """The sum of the first ``size`` leaves, none beyond being in use."""
        depth, nodes = self._top(size)
        return float(self._levels[depth][:nodes].sum())

    def _top(self, size: int) -> tuple[int, int]:
        """The level where searches begin, and how many nodes it has."""
        depth, nodes = 0, size
        while nodes > _TOP_NODES and depth < len(_EVERY):
            depth, nodes = depth + 1, -(-nodes // FANOUT)
        return depth, nodes


class MinTree(_Tree):
    """Finds the smallest of the leaves that are not 0; all are 0 or more."""

    def _combine(self, blocks: Float64Array) -> Float64Array:
        # 0 stands for "none", so that fresh memory is an empty tree; among numbers it must not win.
        least: Float64Array = np.where(blocks > 0, blocks, np.inf).min(1)
        least[least == np.inf] = 0
        return least

    def least(self, size: int) -> float:
        """The smallest leaf among the first ``size``; 0 for none."""
        found = self._levels[-1][: -(-size // _EVERY[-1])]
        return float(self._combine(found[None])[0])

    def ascending(self, size: int) -> Iterator[int]:
        """Places of the leaves that are not 0, the smallest first."""
        depth = len(_EVERY)
        top = self._levels[depth][: -(-size // _EVERY[-1])]
        heap = [(value, depth, place) for place, value in enumerate(top.tolist()) if value > 0]
        heapq.heapify(heap)
        while heap:
            value, depth, place = heapq.heappop(heap)
            if depth == 0:
                yield place
                continue
            children = self._blocks[depth - 1][place].tolist()
            for child, value in enumerate(children, place * FANOUT):
                if value > 0:
                    heapq.heappush(heap, (value, depth - 1, child))
