"""Who is sampled, and who is ejected."""

from __future__ import annotations

from shmtable.strategies.base import EjectionStrategy, SampleStrategy, StateSpec, Strategy
from shmtable.strategies.fifo import FifoEjectionStrategy, FifoSampleStrategy
from shmtable.strategies.priorities import MOST_PRIORITY
from shmtable.strategies.prioritized import PrioritizedSampleStrategy
from shmtable.strategies.uniform import UniformEjectionStrategy, UniformSampleStrategy

__all__ = [
    "MOST_PRIORITY",
    "STRATEGIES",
    "EjectionStrategy",
    "FifoEjectionStrategy",
    "FifoSampleStrategy",
    "PrioritizedSampleStrategy",
    "SampleStrategy",
    "StateSpec",
    "Strategy",
    "UniformEjectionStrategy",
    "UniformSampleStrategy",
]

# What a table's header may name. A header is data: names that are not here are never imported.
STRATEGIES: dict[str, type[Strategy]] = {
    cls.__name__: cls
    for cls in (
        FifoEjectionStrategy,
        FifoSampleStrategy,
        PrioritizedSampleStrategy,
        UniformEjectionStrategy,
        UniformSampleStrategy,
    )
}
