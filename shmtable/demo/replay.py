"""The table that actors fill and the learner samples from."""

from __future__ import annotations

from shmtable import (
    ArrayMemoryTable,
    Column,
    FifoEjectionStrategy,
    NextElementMapper,
    UniformSampleStrategy,
    VirtualColumn,
)
from shmtable.demo.environment import OBSERVATION_SHAPE
from shmtable.demo.options import Options


def make_table(options: Options) -> ArrayMemoryTable:
    """A table of CartPole transitions; the oldest episode leaves when it is full."""
    return ArrayMemoryTable(
        Column("obs", OBSERVATION_SHAPE, "float32"),
        # Not stored a second time: the next observation is the following row of "obs". That is
        # why an episode brings one observation more than it has actions.
        VirtualColumn(
            "next_obs",
            OBSERVATION_SHAPE,
            "float32",
            target_name="obs",
            mapper=NextElementMapper,
        ),
        Column("actions", (), "int64"),
        Column("rewards", (), "float32"),
        # True where the pole fell. Stored rather than derived from "last step of the episode",
        # because an episode that reached the time limit ends without an end to be learned.
        Column("terminated", (), "bool"),
        maxlen=options.maxlen,
        sampler=UniformSampleStrategy(),
        ejector=FifoEjectionStrategy(),
        length_key="actions",
        seed=options.seed,
    )
