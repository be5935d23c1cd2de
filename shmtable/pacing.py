"""What a table offers to those who steer it while it is in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shmtable.errors import SpecError
from shmtable.held import HeldTable
from shmtable.limiters import Limiter
from shmtable.protocols import consume, hold, update_priorities
from shmtable.protocols.arguments import as_int64, at_least_one
from shmtable.protocols.update import update
from shmtable.strategies import EjectionStrategy, SampleStrategy
from shmtable.types import SamplePoints


class Steered(HeldTable):
    """A table's strategies and limiter, and writing back into it."""

    # -- strategies -----------------------------------------------------------------------

    @property
    def keeps_priorities(self) -> bool:
        """Whether ``update_priorities`` is of use: a strategy of the table keeps priorities."""
        return bool(self._core.prioritized)

    @property
    def layout(self) -> str:
        """The shape of its samples, "flat" or "batch_time"."""
        return self._core.options.layout

    @property
    def length_key(self) -> str:
        """The column whose rows say how many transitions a sequence has."""
        return self._core.schema.length_key

    @property
    def sampler(self) -> SampleStrategy:
        """The table's sampler, whose settings (``beta``, ...) may be changed while running."""
        return self._core.sampler

    @property
    def ejector(self) -> EjectionStrategy:
        """The table's ejector."""
        return self._core.ejector

    def reseed(self, seed: int | Sequence[int]) -> None:
        """Draw from here on as ``seed`` says, through this object and in this process only.

        By default every process has a stream of its own, derived from the table's ``seed``. Two
        that reseed alike draw alike.

        Args:
            seed: one or several integers, 0 or more.

        Raises:
            SpecError: something else.
        """
        seeds = list(seed) if isinstance(seed, (list, tuple)) else [seed]
        numbers = [as_int64("seed", number) for number in seeds]
        if not numbers or min(numbers) < 0:
            raise SpecError(f"seed is {seed!r}; give one or several integers, 0 or more")
        self._core.guard.run(self._core.reseed_locked, numbers)

    # -- pacing ----------------------------------------------------------------------------

    @property
    def limiter(self) -> Limiter | None:
        """When adds and samples may proceed; None for always.

        May be set while the table is in use, by any process that has it: from then on it counts
        for all, with what the table holds as its start, so that neither side waits at first.
        Setting one that the table cannot have raises a ``SpecError`` and changes nothing.
        """
        return self._core.guard.run(self._core.pace.limiter_locked)

    @limiter.setter
    def limiter(self, limiter: Limiter | None) -> None:
        hold.put(self._core, limiter)

    def can_insert(self, length: int = 1) -> bool:
        """Whether the limiter would admit a sequence of ``length`` transitions now.

        Only asks: another process may be faster. Without a limiter always true.
        """
        length = at_least_one("length", length)
        return self._core.guard.run(self._core.pace.can_insert_locked, length)

    def can_sample(self, count: int, sequence_length: int) -> bool:
        """Whether such a sample could be had now, without waiting.

        Only asks: another process may be faster.

        Args:
            count: windows, at least 1.
            sequence_length: transitions per window, at least 1.
        """
        count = at_least_one("count", count)
        steps = at_least_one("sequence_length", sequence_length)
        return self._core.guard.run(consume.can_sample_locked, self._core, count, steps)

    # -- writing back ----------------------------------------------------------------------

    def update_priorities(self, points: SamplePoints, priorities: Any) -> int:
        """Give windows that were sampled new priorities, typically the errors made on them.

        Args:
            points: ``.points`` of a sample, drawn by this or another process.
            priorities: array or tensor, 0 or more: one per window, ``(count,)``, or one per
                transition, ``(count, sequence_length)`` or flat as the sample is.

        Returns:
            How many windows it was applied to: those whose sequence has left are passed over.

        Raises:
            PriorityError: a negative number, NaN, a wrong shape, or a table without priorities.
        """
        return update_priorities(self._core, points, priorities)

    def update(self, points: SamplePoints, column: str, values: Any) -> int:
        """Write values back into the windows of a sample: recurrent states, relabelled rewards.

        Windows whose sequence has left the table since are ignored. Each window is written whole:
        nobody ever samples half of one. Where windows share transitions, the last one counts. A
        process that dies inside the call may leave some windows written and others not.

        Args:
            points: ``sample(...).points``.
            column: a stored column.
            values: ``(count, sequence_length, *shape)`` or ``(count * sequence_length, *shape)``,
                array, tensor or list, as in a sequence. Fewer steps than were sampled write only
                the first ones of each window.

        Returns:
            How many windows were still there and have been written.

        Raises:
            SpecError: points or a column that cannot be written to; nothing has changed.
            SequenceError: values that do not fit; nothing has changed.
        """
        return update(self._core, points, column, values)
