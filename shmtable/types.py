"""Frozen values that cross the layers of the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
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
    arrays: list[Any] = [combine(*(getattr(one, name) for one in points)) for name in _ALWAYS]
    if any(one.chances is not None for one in points):
        arrays.append(combine(*(_chances(one) for one in points)))
    return SamplePoints(*arrays)


_ALWAYS = [field.name for field in fields(SamplePoints) if field.name != "chances"]


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
        if columns:
            self.update(columns)
        self.points = points
        self.weights = weights

    def __missing__(self, name: object) -> Any:
        raise KeyError(f"the sample has no column {name!r}; it has {', '.join(self)}")


@dataclass(frozen=True)
class Finding:
    """One broken invariant found by ``check()``."""

    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


@dataclass(frozen=True, eq=False)
class LiveSequences:
    """The live sequences of a table, oldest first, as ``Onlooker.sequences`` sees them.

    Attributes:
        lengths: int64 [n], transitions of each.
        ages: int64 [n], transitions added to the table after each.
        times_sampled: int64 [n], windows handed out of each.
        priorities: float64, one per live transition, or per sequence if the sampler keeps them so;
            None where there are none, or where they cannot be found from outside because the
            table computes columns by classes of your own.
    """

    lengths: Int64Array
    ages: Int64Array
    times_sampled: Int64Array
    priorities: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class ProcessStats:
    """One process that has a table open, or has died with it open.

    Attributes:
        pid: its process id.
        alive: whether it still runs; None where the system cannot be asked, because it counts its
            processes in another pid namespace.
        joined_s_ago: seconds since it opened the table.
        sequences_added, transitions_added: what it has added since.
        added_s_ago: seconds since it last added; None for never.
        sampled_s_ago: seconds since it was last handed a sample; None for never.
    """

    pid: int
    alive: bool | None
    joined_s_ago: float
    sequences_added: int
    transitions_added: int
    added_s_ago: float | None
    sampled_s_ago: float | None


@dataclass(frozen=True)
class Stats:
    """The state of a table in plain units. The counts are all of one moment.

    Totals are of the table's whole life and of all processes; how fast they rise is the
    difference of two of these, divided by the seconds in between. Two are equal when all but the
    waiting and the processes is.

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
        transitions_sampled: transitions of those windows.
        oldest_age_transitions: transitions added since the oldest live sequence was.
        adds_waited_s: seconds that adds have waited, for the limiter or for room; those of
            several processes add up, to a tenth of a second each.
        samples_waited_s: seconds that samples have waited, for the limiter or for data.
        lock_waits: how often a call found one of the table's locks taken.
        lock_waited_s: seconds that those calls waited until they had it.
        limiter: the limiter in force, as it is written in Python; empty for none.
        adds_blocked: why the limiter would hold an add back now that is as large as the largest
            so far; empty when it would not.
        samples_blocked: likewise for a sample.
        recoveries: times the derived state was rebuilt.
        attachments: processes attached since creation, the creator included.
        bytes_payload: bytes of the live transitions' stored columns.
        bytes_reserved: bytes of memory taken from the system, a device's included.
        bytes_address: bytes of address space mapped; costs nothing until touched.
        processes: those that have the table open, or died with it open, by when they opened it.
            Looked up right after the counts.
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
    transitions_sampled: int
    oldest_age_transitions: int
    adds_waited_s: float = field(compare=False)
    samples_waited_s: float = field(compare=False)
    lock_waits: int = field(compare=False)
    lock_waited_s: float = field(compare=False)
    limiter: str
    adds_blocked: str
    samples_blocked: str
    recoveries: int
    attachments: int
    bytes_payload: int
    bytes_reserved: int
    bytes_address: int
    processes: tuple[ProcessStats, ...] = field(compare=False)

    @property
    def fill(self) -> float:
        """Share of ``maxlen`` in use, 0 to 1."""
        return self.transitions / self.maxlen

    @property
    def transitions_removed(self) -> int:
        """Transitions that left again."""
        return self.transitions_added - self.transitions

    @property
    def replay_ratio(self) -> float:
        """Transitions handed out for each one added; 0 before the first is added."""
        return self.transitions_sampled / max(self.transitions_added, 1)
