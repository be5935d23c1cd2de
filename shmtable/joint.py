"""Several tables sampled as one: offline data beside online, tasks beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from shmtable.columns import Column
from shmtable.errors import PriorityError, SpecError
from shmtable.protocols.arguments import at_least_one
from shmtable.table import ArrayMemoryTable
from shmtable.types import SamplePoints, SampleResult


class JointSample(SampleResult):
    """A sample of several tables: the windows of the first come first, then those of the next.

    Attributes:
        parts: for each table the points of its windows; None for one that gave none.
        sources: int64 [B], which table each window came from.
    """

    __slots__ = ("parts", "sources")

    def __init__(
        self,
        columns: dict[str, Any],
        *,
        parts: tuple[SamplePoints | None, ...],
        sources: Tensor,
        weights: Tensor | None,
    ) -> None:
        super().__init__(columns, weights=weights)
        self.parts = parts
        self.sources = sources


class JointTable:
    """Draws every sample from several tables, a fraction from each.

    What a fraction leaves over of one window is carried into the next sample, so that the shares
    come out exactly in the long run.

    Args:
        tables: pairs of fraction and table, ``[(0.5, offline), (0.5, online)]``; the fractions
            are taken in proportion to their sum. The tables need the same columns.

    Raises:
        SpecError: no table, a fraction that is not above 0, tables that differ in their columns
            or in the layout of their samples.
    """

    def __init__(self, tables: Sequence[tuple[float, ArrayMemoryTable]]) -> None:
        pairs = list(tables)
        if not pairs:
            raise SpecError("tables is empty; give pairs of fraction and table")
        for fraction, table in pairs:
            if not isinstance(fraction, (int, float)) or not 0 < fraction < math.inf:
                raise SpecError(f"fraction is {fraction!r}; give a number above 0")
            _refuse_other(pairs[0][1], table)
        total = sum(fraction for fraction, _ in pairs)
        self.tables = tuple(table for _, table in pairs)
        self._shares = [fraction / total for fraction, _ in pairs]
        self._owed = [0.0] * len(pairs)

    def sample(
        self, count: int, sequence_length: int, *, timeout_s: float | None = 0.0
    ) -> JointSample:
        """Draw ``count`` windows of ``sequence_length`` transitions.

        Args:
            count: windows over all tables, at least 1.
            sequence_length: transitions per window, at least 1.
            timeout_s: how long to wait for something to sample, for each table.

        Returns:
            As a table's sample, one table's windows after the other's. ``weights`` are there if
            one of the tables has them; the others' windows weigh 1.

        Raises:
            SampleError, WaitTimeoutError: one of the tables has nothing to sample.
        """
        numbers, owed = self._split(at_least_one("count", count))
        samples = [
            table.sample(number, sequence_length, timeout_s=timeout_s) if number else None
            for table, number in zip(self.tables, numbers, strict=True)
        ]
        self._owed = owed  # only now: what an error kept from being drawn is owed as before
        given = [sample for sample in samples if sample is not None]
        device = self.tables[0].device
        columns = {
            name: torch.cat([sample[name].to(device) for sample in given]) for name in given[0]
        }
        sources = torch.arange(len(numbers)).repeat_interleave(torch.tensor(numbers))
        return JointSample(
            columns,
            parts=tuple(None if sample is None else sample.points for sample in samples),
            sources=sources.to(device),
            weights=_weights(samples, numbers, device),
        )

    def size(self) -> int:
        """Number of transitions in all tables."""
        return sum(table.size() for table in self.tables)

    def can_sample(self, count: int, sequence_length: int) -> bool:
        """Whether such a sample could be had now, without waiting.

        Args:
            count: windows over all tables, at least 1.
            sequence_length: transitions per window, at least 1.
        """
        numbers, _ = self._split(at_least_one("count", count))
        return all(
            table.can_sample(number, sequence_length)
            for table, number in zip(self.tables, numbers, strict=True)
            if number
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        """The tables' columns, as the first has them."""
        return self.tables[0].columns

    @property
    def device(self) -> torch.device:
        """Where samples are delivered."""
        return self.tables[0].device

    def update_priorities(self, sample: JointSample, priorities: Any) -> int:
        """Give the windows of a sample new priorities, in those tables that keep any.

        Args:
            sample: from this object.
            priorities: as for a table, for all windows of the sample.

        Returns:
            How many windows it was applied to.

        Raises:
            PriorityError: no priorities, or not as many as there are windows.
        """
        values = torch.as_tensor(priorities)
        windows = len(sample.sources)
        if not values.numel() or values.shape[0] % windows:
            raise PriorityError(
                f"priorities have shape {tuple(values.shape)} for {windows} windows; give one for "
                "each, or one for each transition of each, window by window"
            )
        values = values.reshape(windows, -1)
        applied = first = 0
        for table, points in zip(self.tables, sample.parts, strict=True):
            if points is None:
                continue
            last = first + len(points)
            if table.keeps_priorities:
                applied += table.update_priorities(points, values[first:last])
            first = last
        return applied

    def writer(self, *args: Any, **options: Any) -> NoReturn:
        """Not here: only a single table is written to.

        Raises:
            SpecError: always.
        """
        raise SpecError("a joint table is only sampled from; make the writer of one of its .tables")

    vector_writer = writer

    def _split(self, count: int) -> tuple[list[int], list[float]]:
        """How many windows each table gives, what it is owed rounded; and what it is owed then."""
        owed = [debt + share * count for debt, share in zip(self._owed, self._shares, strict=True)]
        numbers = [max(math.floor(amount), 0) for amount in owed]
        # The rest goes to those that are owed most beyond their whole part.
        while sum(numbers) < count:
            left = [amount - number for amount, number in zip(owed, numbers, strict=True)]
            numbers[left.index(max(left))] += 1
        while sum(numbers) > count:
            left = [
                amount - number if number else math.inf
                for amount, number in zip(owed, numbers, strict=True)
            ]
            numbers[left.index(min(left))] -= 1
        return numbers, [amount - number for amount, number in zip(owed, numbers, strict=True)]


def _refuse_other(first: ArrayMemoryTable, table: ArrayMemoryTable) -> None:
    columns, others = _described(first), _described(table)
    for name in columns.keys() | others.keys():
        if columns.get(name) != others.get(name):
            raise SpecError(
                f"column '{name}' is {columns.get(name)} in the first table and "
                f"{others.get(name)} in another; joint tables need the same columns"
            )
    if first.layout != table.layout:
        raise SpecError(
            f"layout is {first.layout!r} in the first table and {table.layout!r} in another; make "
            "them alike"
        )


def _described(table: ArrayMemoryTable) -> Mapping[str, tuple[tuple[int, ...], str, bool]]:
    return {
        column.name: (column.shape, column.dtype.name, column.per_window)
        for column in table.columns
    }


def _weights(
    samples: Sequence[SampleResult | None], numbers: Sequence[int], device: torch.device
) -> Tensor | None:
    if all(sample is None or sample.weights is None for sample in samples):
        return None
    return torch.cat(
        [
            torch.ones(number, device=device)
            if sample is None or sample.weights is None
            else sample.weights.to(device)
            for sample, number in zip(samples, numbers, strict=True)
        ]
    )
