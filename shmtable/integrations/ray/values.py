"""What the parts of a distributed table tell each other, and its users."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from shmtable.errors import PriorityError, SpecError
from shmtable.strategies import MOST_PRIORITY
from shmtable.types import Int64Array, SamplePoints, Stats

_NONE: Int64Array = np.empty(0, np.int64)


@dataclass(eq=False, slots=True)
class ShardedPoints(SamplePoints):
    """Where the windows of one sample lie, and in which shards.

    Attributes:
        sources: int64 [B], each window's place in ``tables``.
        tables: the ids of the shards' tables. A shard that has come back empty has another id, so
            whatever is meant for the one before finds nobody.
    """

    sources: Int64Array = field(default_factory=lambda: _NONE)
    tables: tuple[int, ...] = ()

    def at(self, places: Any) -> ShardedPoints:
        """Those at ``places``: whatever indexes an array."""
        return sharded(SamplePoints.at(self, places), self.sources[places], self.tables)

    def of(self, source: int) -> tuple[Int64Array, SamplePoints]:
        """Which windows lie in this shard, int64 [k], and their points as its table knows them."""
        places: Int64Array = (self.sources == source).nonzero()[0]
        return places, SamplePoints.at(self, places)


def sharded(points: SamplePoints, sources: Int64Array, tables: tuple[int, ...]) -> ShardedPoints:
    """Points with the shards that they lie in."""
    fields = {name: getattr(points, name) for name in SamplePoints.__slots__}
    return ShardedPoints(**fields, sources=sources, tables=tables)


class Offer(NamedTuple):
    """What a shard may contribute to samples of one window length, at one moment.

    Attributes:
        table: the id of its table.
        weight: of all windows on offer together: how many there are, or the sum of their weights.
        transitions: in the shard.
        longest: its longest sequence, in transitions; 0 for none.
        beta: how much importance weights correct; None for a sampler without.
        least: the lowest weight of a window, where the sampler keeps it; else infinity.
    """

    table: int
    weight: float
    transitions: int
    longest: int
    beta: float | None
    least: float


class Part(NamedTuple):
    """A shard's answer: its offer, and the windows that it was asked for.

    Attributes:
        offer: as of right before the draw.
        columns: by name, the windows one after the other; empty if none could be had.
        points: int64 [6, B], the fields of ``SamplePoints``, in order.
        chances: float64 [B], the windows' own weights in the shard's sampler, or None.
    """

    offer: Offer
    columns: dict[str, np.ndarray[Any, Any]]
    points: Int64Array
    chances: np.ndarray[Any, Any] | None

    def __len__(self) -> int:
        return int(self.points.shape[1])


@dataclass(frozen=True)
class ShardStats:
    """One shard.

    Attributes:
        name: of its table, as ``shmtable ls`` lists it on the node.
        node: Ray's id of the node.
        state: "ready"; "starting"; "silent" where it does not answer, or is being restarted.
        table: the id of its table; 0 while it is not known.
        stats: of its table; None where it does not answer.
    """

    name: str
    node: str
    state: str
    table: int
    stats: Stats | None


@dataclass(frozen=True)
class DistributedStats:
    """The state of a distributed table; sums are over the shards that answer.

    Attributes:
        shards: those there are.
        shards_lost: how many have been lost with all they held since the table was made.
        transitions_lost: how many transitions these held when last heard of.
        replies_late: answers that came after a sample's deadline, to this process.
        windows_redrawn: windows that this process asked of one shard and took from another.
        limiter: the limiter in force, as it is written in Python; empty for none.
    """

    shards: tuple[ShardStats, ...]
    shards_lost: int
    transitions_lost: int
    replies_late: int
    windows_redrawn: int
    limiter: str

    def _sum(self, name: str) -> int:
        return sum(getattr(shard.stats, name) for shard in self.shards if shard.stats is not None)

    @property
    def transitions(self) -> int:
        """Live transitions."""
        return self._sum("transitions")

    @property
    def sequences(self) -> int:
        """Live sequences."""
        return self._sum("sequences")

    @property
    def maxlen(self) -> int:
        """Most transitions that these shards hold."""
        return self._sum("maxlen")

    @property
    def sequences_added(self) -> int:
        """Sequences committed, over the shards' lives."""
        return self._sum("sequences_added")

    @property
    def transitions_added(self) -> int:
        """Transitions committed, over the shards' lives."""
        return self._sum("transitions_added")

    @property
    def windows_sampled(self) -> int:
        """Windows handed out by the shards, those included that came late or were redrawn."""
        return self._sum("windows_sampled")

    @property
    def bytes_payload(self) -> int:
        """Bytes of the live transitions' stored columns."""
        return self._sum("bytes_payload")


def as_points(points: Any) -> ShardedPoints:
    """Points of a distributed table's sample.

    Raises:
        SpecError: something else.
    """
    if not isinstance(points, ShardedPoints):
        raise SpecError(
            f"points is a {type(points).__name__}; give the .points of a sample of this table"
        )
    return points


def as_priorities(priorities: Any, windows: int) -> npt.NDArray[np.float64]:
    """Priorities by window, float64 [B, 1 or L], checked before any shard is asked.

    Raises:
        PriorityError: a negative number, NaN, or not as many as there are windows.
    """
    values = torch.as_tensor(priorities).detach().to("cpu", torch.float64).numpy()
    if not values.size or not windows or values.size % windows:
        raise PriorityError(
            f"priorities have shape {values.shape} for {windows} windows; give one for each, or "
            "one for each transition of each, window by window"
        )
    if not ((values >= 0) & (values <= MOST_PRIORITY)).all():
        raise PriorityError(
            f"priorities have values from {values.min():g} to {values.max():g}; give numbers from "
            f"0 to {MOST_PRIORITY:g}, the absolute value of the errors"
        )
    return values.reshape(windows, -1)
