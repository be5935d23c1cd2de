"""A table's numbers in TensorBoard, or wherever else a ``SummaryWriter`` leads."""

from __future__ import annotations

import time
from typing import Protocol

from shmtable.held import HeldTable
from shmtable.onlooker import Onlooker
from shmtable.rates import Rates
from shmtable.types import Stats

__all__ = ["ScalarWriter", "TensorBoardReporter"]


class ScalarWriter(Protocol):
    """What is asked of a ``SummaryWriter``: torch's, tensorboardX's, or one of your own."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> object:
        """Note one number."""


class TensorBoardReporter:
    """Writes a table's numbers, and how fast they change, as scalars.

    Args:
        writer: a ``SummaryWriter``, or anything with its ``add_scalar``.
        table: one that this process has open, or an ``Onlooker``.
        prefix: every tag begins with it and a slash.
    """

    def __init__(
        self, writer: ScalarWriter, table: HeldTable | Onlooker, prefix: str = "table"
    ) -> None:
        self._writer = writer
        self._table = table
        self._prefix = prefix
        self._before: tuple[float, Stats] | None = None

    def report(self, step: int) -> None:
        """Write everything; the rates are since the report before, so the first has none.

        Takes some tens of microseconds beside what the writer takes.

        Args:
            step: the ``global_step``, for example of the learner.

        Raises:
            ClosedError: the table is closed.
        """
        now_s, stats = time.monotonic(), self._table.stats()
        found = {
            "fill": stats.fill,
            "transitions": stats.transitions,
            "sequences": stats.sequences,
            "writing_transitions": stats.writing_transitions,
            "transitions_added": stats.transitions_added,
            "transitions_sampled": stats.transitions_sampled,
            "transitions_removed": stats.transitions_removed,
            "replay_ratio": stats.replay_ratio,
            "oldest_age_transitions": stats.oldest_age_transitions,
            "adds_waited_s": stats.adds_waited_s,
            "samples_waited_s": stats.samples_waited_s,
            "lock_waited_s": stats.lock_waited_s,
            "bytes_reserved": stats.bytes_reserved,
            "recoveries": stats.recoveries,
            "processes_alive": sum(process.alive is not False for process in stats.processes),
        }
        if self._before is not None and now_s > self._before[0]:
            rates = Rates.between(self._before[1], stats, now_s - self._before[0])
            found |= {
                "transitions_added_per_s": rates.transitions_added,
                "transitions_sampled_per_s": rates.transitions_sampled,
                "transitions_removed_per_s": rates.transitions_removed,
                "lock_waits_per_s": rates.lock_waits,
            }
        self._before = now_s, stats
        for name, value in found.items():
            self._writer.add_scalar(f"{self._prefix}/{name}", value, step)
