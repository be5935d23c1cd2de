"""When adds and samples may proceed."""

from __future__ import annotations

from shmtable.limiters.base import Limiter, Standing
from shmtable.limiters.granted import Granted
from shmtable.limiters.min_size import MinSize
from shmtable.limiters.queue import Queue, Stack
from shmtable.limiters.ratio import SampleToInsertRatio

__all__ = [
    "LIMITERS",
    "Granted",
    "Limiter",
    "MinSize",
    "Queue",
    "SampleToInsertRatio",
    "Stack",
    "Standing",
]

# By these numbers a table's memory knows them.
LIMITERS: dict[int, type[Limiter]] = {
    1: MinSize,
    2: SampleToInsertRatio,
    3: Queue,
    4: Stack,
    5: Granted,
}
