"""A replay table in shared memory, for PyTorch, that many processes use at once."""

from __future__ import annotations

import sys

from shmtable._version import __version__
from shmtable.adaptors import (
    Adaptor,
    DictObsAdaptor,
    KeyCastAdaptor,
    KeyScaleAdaptor,
    TerminalAdaptor,
)
from shmtable.checkpoint import CheckpointEvery
from shmtable.columns import Column, TagColumn, VirtualColumn
from shmtable.errors import (
    ArenaDamagedError,
    ArenaError,
    ArenaInUseError,
    ArenaNotFoundError,
    ArenaPermissionError,
    ArenaUncleanError,
    ArenaVersionError,
    CapacityError,
    ClosedError,
    DuplicateIdentityError,
    EmptyTableError,
    FileDamagedError,
    FileMismatchError,
    FileMissingError,
    FileUnsafeError,
    FileVersionError,
    LockReentryError,
    LockTimeoutError,
    MissingExtraError,
    NoWindowError,
    SampleError,
    SequenceError,
    SharedMemoryError,
    ShmTableError,
    SlotLostError,
    SpecError,
    StrategyError,
    TableFileError,
    UnknownIdentityError,
    WaitTimeoutError,
)
from shmtable.mappers import Mapper, NextElementMapper, NextNElementWrapper, SyntheticDones
from shmtable.strategies import (
    EjectionStrategy,
    FifoEjectionStrategy,
    FifoSampleStrategy,
    SampleStrategy,
    StateSpec,
    UniformEjectionStrategy,
    UniformSampleStrategy,
)
from shmtable.table import ArrayMemoryTable, MemoryTable, TableSerializationVersion
from shmtable.types import Finding, SamplePoints, SampleResult, Stats

__all__ = [
    "Adaptor",
    "ArenaDamagedError",
    "ArenaError",
    "ArenaInUseError",
    "ArenaNotFoundError",
    "ArenaPermissionError",
    "ArenaUncleanError",
    "ArenaVersionError",
    "ArrayMemoryTable",
    "CapacityError",
    "CheckpointEvery",
    "ClosedError",
    "Column",
    "DictObsAdaptor",
    "DuplicateIdentityError",
    "EjectionStrategy",
    "EmptyTableError",
    "FifoEjectionStrategy",
    "FifoSampleStrategy",
    "FileDamagedError",
    "FileMismatchError",
    "FileMissingError",
    "FileUnsafeError",
    "FileVersionError",
    "Finding",
    "KeyCastAdaptor",
    "KeyScaleAdaptor",
    "LockReentryError",
    "LockTimeoutError",
    "Mapper",
    "MemoryTable",
    "MissingExtraError",
    "NextElementMapper",
    "NextNElementWrapper",
    "NoWindowError",
    "SampleError",
    "SamplePoints",
    "SampleResult",
    "SampleStrategy",
    "SequenceError",
    "SharedMemoryError",
    "ShmTableError",
    "SlotLostError",
    "SpecError",
    "StateSpec",
    "Stats",
    "StrategyError",
    "SyntheticDones",
    "TableFileError",
    "TableSerializationVersion",
    "TagColumn",
    "TerminalAdaptor",
    "UniformEjectionStrategy",
    "UniformSampleStrategy",
    "UnknownIdentityError",
    "VirtualColumn",
    "WaitTimeoutError",
    "__version__",
]

# What keeps Ctrl-C from orphaning a lock, and a thread from seeing another one's half-made section,
# counts on one thread running at a time. Without that, nothing has been shown.
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError(
        "shmtable does not support Python without its global interpreter lock yet; start Python "
        "with PYTHON_GIL=1, or use a build that has the lock"
    )
