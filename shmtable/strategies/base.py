"""What a strategy is: who is sampled, and who is ejected.

A strategy sees the table through an ``IndexView`` and keeps nothing of its own that another
process would need. What it must remember it declares as shared arrays (``states``); the table
allocates them, and hands every process its view of the same memory (``bind``). All calls come
under the table's lock, one at a time, but for ``receive`` and ``weights``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from shmtable.errors import SpecError
from shmtable.index import IndexView
from shmtable.types import Int64Array, SamplePoints

S = TypeVar("S", bound="Strategy")


@dataclass(frozen=True)
class StateSpec:
    """A shared array that a strategy asks for; all zero at first.

    Attributes:
        name: unique within the strategy.
        per: "slot" or "row": items for each; "table": a single item.
        dtype: the items' numpy dtype, by name.
        every: so many slots or rows share an item; 1, or a multiple of 16.
        derived: ``rebuild`` recomputes it, so no file keeps it. (Nor does a file keep items that
            several sequences share, or the whole table.)
    """

    name: str
    per: str
    dtype: str
    every: int = 1
    derived: bool = False

    @property
    def kept(self) -> bool:
        """Whether a file keeps each sequence's items."""
        return self.per != "table" and self.every == 1 and not self.derived


class Strategy(ABC):
    """Common to samplers and ejectors."""

    #: Whether ``update_priorities`` and a sequence's ``priority`` mean something to it.
    takes_priorities: bool = False

    view: IndexView
    arrays: Mapping[str, npt.NDArray[Any]]

    def config(self) -> dict[str, Any]:
        """The constructor's keyword arguments, as JSON values, to make an equal strategy."""
        return {}

    @classmethod
    def from_config(
        cls: type[S], config: Mapping[str, Any], classes: Mapping[str, type[Strategy]]
    ) -> S:
        """Make one from what ``config`` returned.

        Args:
            config: its keyword arguments.
            classes: by name, those of which strategies may be made that it consists of.
        """
        return cls(**config)

    def parts(self) -> tuple[Strategy, ...]:
        """The strategies this one consists of; by default none."""
        return ()

    def states(self) -> tuple[StateSpec, ...]:
        """The shared arrays this strategy needs; by default none."""
        return ()

    def bind(self, view: IndexView, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Join a table: called once in every process, before any other call below."""
        self.view = view
        self.arrays = arrays

    def __getattr__(self, name: str) -> Any:
        # A table makes its own from this one's settings, so as to be the same in every process.
        if name in ("view", "arrays") or ("arrays" not in vars(self) and hasattr(type(self), name)):
            raise AttributeError(
                f"this {type(self).__name__} belongs to no table; use the table's own: "
                "table.sampler, table.ejector"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        if "arrays" in vars(self):
            raise SpecError(
                f"this {type(self).__name__} is a table's own and is not pickled or copied: what "
                "it knows lies in the table's memory; pass the table, or one that you have made "
                "and given to no table"
            )
        return dict(vars(self))

    def initialise(self) -> None:  # noqa: B027
        """The table has just been made: store what must not be zero. Called once per table."""

    def receive(self, slot: int, start: int, length: int, priority: Any) -> None:  # noqa: B027
        """A sequence is being written: note the priority given with it (or None).

        The only call that comes without the lock. Nobody else looks at these rows, or at this
        slot, until ``track``; nothing else may be stored.
        """

    def track(self, slot: int, start: int, length: int) -> None:  # noqa: B027
        """A sequence is about to become live, and nothing can come in between.

        Store what belongs to it, then what is derived. After a crash ``rebuild`` is called.
        """

    def forget(self, slot: int, start: int, length: int) -> None:  # noqa: B027
        """A live sequence has left: update what is derived from the live ones."""

    def rebuild(self) -> None:  # noqa: B027
        """Recompute everything derived from the live sequences (after a crash, or ``clear``)."""

    def update_priorities(self, points: SamplePoints, priorities: npt.NDArray[np.float64]) -> None:  # noqa: B027
        """New priorities for windows of live sequences.

        Called only where ``takes_priorities`` is true, with valid values.

        Args:
            points: windows; the same one may occur again, and then the last one counts.
            priorities: float64 [B, L]; NaN where a window reaches past its sequence.
        """

    def on_sample(self, points: SamplePoints, sequence_length: int) -> None:  # noqa: B027
        """The windows ``points`` are being handed out; samplers and ejectors are told.

        After a crash in here ``rebuild`` is called.
        """

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

        Make the result with ``self.view.points(slots, offsets)``. There is a live sequence. Not
        all that is chosen will be handed out (see ``on_sample``), and what a crash leaves half
        stored in here, nobody rebuilds: mark it, as the sampler without replacement does.

        Args:
            count: windows to choose (B), at least 1; the same one may be chosen again.
            sequence_length: transitions per window (L), at least 1.
            random: this process's generator; no two processes share a stream.
        Returns:
            exactly ``count`` points, or none at all when no sequence offers a window.
        """

    def weights(self, points: SamplePoints) -> Tensor | None:
        """Importance weights, float32 [B]; None from a sampler without. Needs no lock."""
        return None


class EjectionStrategy(Strategy):
    """Chooses sequences to remove."""

    @abstractmethod
    def sample(self, count: int, random: np.random.Generator) -> Int64Array | list[int]:
        """Choose live sequences that together hold at least ``count`` transitions.

        Args:
            count: transitions to free, 1 up to ``view.live_steps``.
            random: this process's generator.
        Returns:
            int64 [k] distinct live slots, or a list of them, which for a few takes less time.
        """


def make_strategy(
    kind: type[Strategy], name: Any, config: Mapping[str, Any], classes: Mapping[str, type[Any]]
) -> Any:
    """Make the strategy that a table's header describes.

    Args:
        kind: what it must be, a sampler or an ejector.
        name: of its class.
        config: what its ``config`` returned.
        classes: by name, those that may be made at all.

    Raises:
        SpecError: the class is not among them, or of another kind.
    """
    cls = classes.get(name)
    if cls is None or not issubclass(cls, kind):
        raise SpecError(
            f"strategy {name!r} is not a {kind.__name__} this program knows; pass its class, "
            "attach(..., classes=[...]), or pass the table itself to the process"
        )
    return cls.from_config(config, classes)
