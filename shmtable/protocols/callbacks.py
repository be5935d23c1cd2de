"""What the index and the guard call back.

Apart from the core: it would refer to itself, and keep its file until the collector comes by.
"""

from __future__ import annotations

from shmtable.index import Index
from shmtable.index import fields as f
from shmtable.strategies import EjectionStrategy, SampleStrategy


class Told:
    """Sampler and ejector, which are told the same."""

    def __init__(self, sampler: SampleStrategy, ejector: EjectionStrategy) -> None:
        self._sampler = sampler
        self._ejector = ejector

    def track(self, slot: int, start: int, length: int) -> None:
        """A sequence is about to become live."""
        self._sampler.track(slot, start, length)
        self._ejector.track(slot, start, length)

    def forget(self, slot: int, start: int, length: int) -> None:
        """A live sequence has left."""
        self._sampler.forget(slot, start, length)
        self._ejector.forget(slot, start, length)

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
