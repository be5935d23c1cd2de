"""Adds proceed as far as somebody has granted: one part of a limiter over several tables."""

from __future__ import annotations

from dataclasses import dataclass

from shmtable.errors import SpecError
from shmtable.limiters.base import Limiter, Standing, known_unit

_SLACK = 1e-9


@dataclass(frozen=True)
class Granted(Limiter):
    """Holds adds back when what was granted has been used; never holds samples back.

    With inserted * ratio - granted = d, adds wait while d would rise above 0. Whoever paces several
    tables together grants each its part (``Pace.grant_locked``). A table begins with nothing
    granted, and after ``clear`` and ``restore`` it does so again.

    Args:
        ratio: what an insert counts, above 0.
        per: "transition" or "sequence": what is inserted.

    Raises:
        SpecError: a value that cannot be.
    """

    ratio: float
    per: str = "transition"

    def __post_init__(self) -> None:
        known_unit(self, self.per)
        if not 0 < self.ratio <= 1e9:
            raise SpecError(f"Granted: ratio is {self.ratio!r}; give a number above 0, at most 1e9")

    @property
    def unit(self) -> str:
        """See ``Limiter``."""
        return self.per

    @property
    def rate(self) -> float:
        """See ``Limiter``."""
        return self.ratio

    def sample_amount(self, count: int, steps: int) -> int:
        """See ``Limiter``; nothing: samples are counted where they are put together."""
        return 0

    def insert_blocked(self, now: Standing, amount: int) -> str:
        """See ``Limiter``."""
        after = now.ahead + (now.writing + amount) * self.ratio
        if after <= _SLACK * (1 + abs(now.ahead)):
            return ""
        return (
            f"adds are ahead of samples by all that the limiter of the whole table allows "
            f"({after:g} {self.per}s more than granted); sample more, or make the table with a "
            "higher ratio or error_buffer"
        )

    def sample_blocked(self, now: Standing, amount: int) -> str:
        """See ``Limiter``."""
        return ""

    def misfit(self, maxlen: int, max_sequences: int) -> str:
        """See ``Limiter``."""
        return ""
