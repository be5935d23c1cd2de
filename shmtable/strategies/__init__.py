"""Who is sampled, and who is ejected."""

from __future__ import annotations

from shmtable.strategies.base import (
    EjectionStrategy,
    SampleStrategy,
    StateSpec,
    Strategy,
    make_strategy,
)
from shmtable.strategies.composite import CompositeSampleStrategy, EndAlignedSampleStrategy
from shmtable.strategies.coverage import CoverageEjectionStrategy, CoverageSampleStrategy
from shmtable.strategies.fifo import (
    FifoEjectionStrategy,
    FifoSampleStrategy,
    LifoEjectionStrategy,
    LifoSampleStrategy,
)
from shmtable.strategies.least import LowestPriorityEjectionStrategy
from shmtable.strategies.mixture import MixtureSampleStrategy
from shmtable.strategies.once import WithoutReplacementSampleStrategy
from shmtable.strategies.priorities import MOST_PRIORITY
from shmtable.strategies.prioritized import PrioritizedSampleStrategy
from shmtable.strategies.trees import MinTree, SumTree, tree_states
from shmtable.strategies.uniform import UniformEjectionStrategy, UniformSampleStrategy
from shmtable.strategies.weighted import WeightedSampleStrategy

__all__ = [
    "MOST_PRIORITY",
    "STRATEGIES",
    "CompositeSampleStrategy",
    "CoverageEjectionStrategy",
    "CoverageSampleStrategy",
    "EjectionStrategy",
    "EndAlignedSampleStrategy",
    "FifoEjectionStrategy",
    "FifoSampleStrategy",
    "LifoEjectionStrategy",
    "LifoSampleStrategy",
    "LowestPriorityEjectionStrategy",
    "MinTree",
    "MixtureSampleStrategy",
    "PrioritizedSampleStrategy",
    "SampleStrategy",
    "StateSpec",
    "Strategy",
    "SumTree",
    "UniformEjectionStrategy",
    "UniformSampleStrategy",
    "WeightedSampleStrategy",
    "WithoutReplacementSampleStrategy",
    "make_strategy",
    "tree_states",
]

# What a table's header may name. A header is data: names that are not here are never imported.
STRATEGIES: dict[str, type[Strategy]] = {
    cls.__name__: cls
    for cls in (
        CoverageEjectionStrategy,
        CoverageSampleStrategy,
        EndAlignedSampleStrategy,
        FifoEjectionStrategy,
        FifoSampleStrategy,
        LifoEjectionStrategy,
        LifoSampleStrategy,
        LowestPriorityEjectionStrategy,
        MixtureSampleStrategy,
        PrioritizedSampleStrategy,
        UniformEjectionStrategy,
        UniformSampleStrategy,
        WithoutReplacementSampleStrategy,
    )
}
