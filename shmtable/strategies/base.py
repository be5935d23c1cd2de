"""What a strategy is: who is sampled, and who is ejected.

A strategy sees the table through an ``IndexView`` and keeps nothing of its own that another
process would need. What it must remember it declares as shared arrays (``states``); the table
allocates them, and hands every process its view of the same memory (``bind``). All calls come
under the table's lock, one at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from shmtable.index import IndexView
from shmtable.types import Int64Array, SamplePoints

S = TypeVar("S", bound="Strategy")


@dataclass(frozen=True)
class StateSpec:
    """A shared array that a strategy asks for.

    Attributes:
        name: unique within the strategy.
        per: "slot" or "row": one item for each.
        dtype: numpy dtype, or its name. The array is all zero at first.
    """

    name: str
    per: str
    dtype: str


class Strategy(ABC):
    """Common to samplers and ejectors."""

    view: IndexView
    arrays: Mapping[str, npt.NDArray[Any]]

    def config(self) -> dict[str, Any]:
        """The constructor's keyword arguments, as JSON values, to make an equal strategy."""
        return {}

    def states(self) -> tuple[StateSpec, ...]:
        """The shared arrays this strategy needs; by default none."""
        return ()

    def bind(self, view: IndexView, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Join a table: called once in every process, before any other call below."""
        self.view = view
        self.arrays = arrays

    def track(self, slot: int, start: int, length: int) -> None:  # noqa: B027
        """A sequence is about to become live: store what belongs to it (not what is derived)."""

    def forget(self, slot: int, start: int, length: int) -> None:  # noqa: B027
        """A live sequence has left: update what is derived from the live ones."""

    def rebuild(self) -> None:  # noqa: B027
        """Recompute everything derived from the live sequences (after a crash, or ``clear``)."""

    def state(self) -> dict[str, Any] | None:
        """What a file should keep of this strategy beyond its arrays; by default nothing."""
        return None

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take over what ``state`` returned."""

    def clear(self) -> None:
        """Every sequence has been removed."""
        self.rebuild()

    def begin_simple_import(self) -> None:  # noqa: B027
        """Sequences will be added that were not collected just now (from a file)."""

    def end_simple_import(self) -> None:  # noqa: B027
        """The import that ``begin_simple_import`` announced is complete."""

    def post_import(self) -> None:
        """A table has been restored from a file: recompute what is derived."""
        self.rebuild()


class SampleStrategy(Strategy):
    """Chooses windows.

    Attributes:
        pass_order: "oldest" or "newest" where each call takes every sequence that offers a window
            once, in this order, before it takes any a second time; what queues need. None (the
            default) where it does not.
    """

    pass_order: str | None = None

    @abstractmethod
    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        """Choose ``count`` windows of ``sequence_length`` transitions.

        Make the result with ``self.view.points(slots, offsets)``. There is a live sequence.

        Args:
            count: windows to choose (B), at least 1; the same one may be chosen again.
            sequence_length: transitions per window (L), at least 1.
            random: this process's generator; no two processes share a stream.
        Returns:
            exactly ``count`` points, or none at all when no sequence offers a window.
        """

    def on_sample(self, points: SamplePoints, sequence_length: int, advantages: Any = None) -> None:
        """The windows ``points`` have been handed out."""


class EjectionStrategy(Strategy):
    """Chooses sequences to remove."""

    @abstractmethod
    def sample(self, count: int, random: np.random.Generator) -> Int64Array:
        """Choose live sequences that together hold at least ``count`` transitions.

        Args:
            count: transitions to free, 1 up to ``view.live_steps``.
            random: this process's generator.
        Returns:
            int64 [k] distinct live slots.
        """
