"""Frozen values that cross the layers of the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def rows_of(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """The rows of many runs, one run after the other: int64 [sum of lengths]."""
    firsts = np.cumsum(lengths) - lengths
    return np.repeat(starts - firsts, lengths) + np.arange(int(lengths.sum()))


@dataclass(eq=False, slots=True)
class SamplePoints:
    """Where the windows of one sample lie, one entry per window.

    Attributes:
        slots: int64 [B], index entry of the window's sequence.
        offsets: int64 [B], first transition of the window within its sequence.
        generations: int64 [B], the slot's generation when the window was drawn; a slot whose
            generation has moved on holds another sequence, so an update for it is stale.
        identities: int64 [B], the sequences' identities.
        starts: int64 [B], row at which the window starts, in every stored column.
        lengths: int64 [B], transitions of the window's sequence.
        chances: float64 [B], from a weighted sampler: how likely each was to be drawn, up to a
            factor common to all windows on offer; NaN where the draw was not weighted. Else None.
    """

    slots: Int64Array
    offsets: Int64Array
    generations: Int64Array
    identities: Int64Array
    starts: Int64Array
    lengths: Int64Array
    chances: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.slots)

    def at(self, places: Any) -> SamplePoints:
        """Those at ``places``: whatever indexes an array."""
        return _combined(lambda array: array[places], self)

    def replaced(self, places: Int64Array, others: SamplePoints) -> SamplePoints:
        """These with ``others`` (from the same sampler) in the given places."""
        return _combined(lambda old, new: _replaced(old, places, new), self, others)

    @staticmethod
    def joined(parts: Sequence[SamplePoints]) -> SamplePoints:
        """All the points of ``parts``, one part after the other."""
        return _combined(lambda *arrays: np.concatenate(arrays), *parts)


def _combined(combine: Callable[..., Any], *points: SamplePoints) -> SamplePoints:
    """Combine the points field by field."""
    arrays: list[Any] = [
        combine(*(getattr(one, field.name) for one in points))
        for field in fields(SamplePoints)
        if field.name != "chances"
    ]
    if any(one.chances is not None for one in points):
        arrays.append(combine(*(_chances(one) for one in points)))
    return SamplePoints(*arrays)


def _chances(points: SamplePoints) -> npt.NDArray[np.float64]:
    return np.full(len(points), np.nan) if points.chances is None else points.chances


def _replaced(old: Any, places: Int64Array, new: Any) -> Any:
    replaced = old.copy()
    replaced[places] = new
    return replaced


class SampleResult(dict[str, Any]):
    """One sample: column name to tensor, plus where it came from.

    Attributes:
        points: the windows' origin, in the order of the batch.
        weights: float32 [B], importance weights of a weighted sampler, or None.
    """

    __slots__ = ("points", "weights")

    def __init__(
        self,
        columns: dict[str, Any] | None = None,
        *,
        points: SamplePoints | None = None,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__(columns or {})
        self.points = points
        self.weights = weights


@dataclass(frozen=True)
class Finding:
    """One broken invariant found by ``check()``."""

    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


@dataclass(frozen=True)
class Stats:
    """The state of a table in plain units, all read at one moment.

    Attributes:
        transitions: live transitions (what ``size()`` returns).
        sequences: live sequences.
        writing_transitions: transitions of sequences being written right now.
        maxlen: most transitions the table holds.
        max_sequences: most sequences the table holds.
        sequences_added: sequences committed since creation.
        transitions_added: transitions committed since creation.
        sequences_removed: sequences that left again (ejected, replaced or removed).
        windows_sampled: windows handed out since creation (a crash loses at most one call's).
        recoveries: times the derived state was rebuilt.
        attachments: processes attached since creation, the creator included.
        bytes_payload: bytes of the live transitions' stored columns.
        bytes_reserved: bytes of memory taken from the system, a device's included.
        bytes_address: bytes of address space mapped; costs nothing until touched.
    """

    transitions: int
    sequences: int
    writing_transitions: int
    maxlen: int
    max_sequences: int
    sequences_added: int
    transitions_added: int
    sequences_removed: int
    windows_sampled: int
    recoveries: int
    attachments: int
    bytes_payload: int
    bytes_reserved: int
    bytes_address: int

    @property
    def fill(self) -> float:
        """Share of ``maxlen`` in use, 0 to 1."""
        return self.transitions / self.maxlen
