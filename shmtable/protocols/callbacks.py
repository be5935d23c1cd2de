"""What the index and the guard call back.

Apart from the core: it would refer to itself, and keep its file until the collector comes by.
"""

from __future__ import annotations

from shmtable.index import Index
from shmtable.index import fields as f
from shmtable.strategies import EjectionStrategy, SampleStrategy, Strategy


def overrides(strategy: Strategy, method: str, base: type[Strategy] = Strategy) -> bool:
    """Whether a strategy has something to say there: worth asking once, not in every call.

    To be asked when it has been bound: it may have got its method in there, or when it was made.
    """
    found = getattr(strategy, method)
    return getattr(found, "__func__", None) is not getattr(base, method)


class Told:
    """Sampler and ejector, which are told the same."""

    def __init__(self, sampler: SampleStrategy, ejector: EjectionStrategy) -> None:
        self._sampler = sampler
        self._ejector = ejector
        both = (sampler, ejector)
        self._track = [strategy.track for strategy in both if overrides(strategy, "track")]
        self._forget = [strategy.forget for strategy in both if overrides(strategy, "forget")]

    def track(self, slot: int, start: int, length: int) -> None:
        """A sequence is about to become live."""
        for track in self._track:
            track(slot, start, length)

    def forget(self, slot: int, start: int, length: int) -> None:
        """A live sequence has left."""
        for forget in self._forget:
            forget(slot, start, length)

    def rebuild(self) -> None:
        """Everything derived is to be derived anew."""
        self._sampler.rebuild()
        self._ejector.rebuild()


class Repair:
    """Makes the index whole after a section that was cut off.

    Attributes:
        index: to be set before the first section.
    """

    index: Index

    def __init__(self, words: memoryview) -> None:
        self._words = words

    def run_locked(self) -> None:
        """Count it, and rebuild."""
        self._words[f.RECOVERIES] += 1
        self.index.rebuild_locked()
