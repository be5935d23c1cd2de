"""Nothing is sampled before there is enough."""

from __future__ import annotations

from dataclasses import dataclass

from shmtable.limiters.base import Limiter, Standing, known_unit, positive_integer, too_large


@dataclass(frozen=True)
class MinSize(Limiter):
    """Holds samples back until the table holds enough; never holds adds back.

    Args:
        min_size: transitions (or sequences) that must be in the table.
        per: "transition" or "sequence": what is counted.

    Raises:
        SpecError: a value that cannot be.
    """

    min_size: int
    per: str = "transition"

    def __post_init__(self) -> None:
        positive_integer(self, "min_size", self.min_size)
        known_unit(self, self.per)

    @property
    def unit(self) -> str:
        """See ``Limiter``."""
        return self.per

    def insert_blocked(self, now: Standing, amount: int) -> str:
        """See ``Limiter``."""
        return ""

    def sample_blocked(self, now: Standing, amount: int) -> str:
        """See ``Limiter``."""
        return too_few(now, self.min_size, self.per)

    def misfit(self, maxlen: int, max_sequences: int) -> str:
        """See ``Limiter``."""
        return too_large(self, "min_size", self.min_size, self.per, maxlen, max_sequences)


def too_few(now: Standing, min_size: int, unit: str) -> str:
    """Why a sample must wait for the table to fill; empty when it need not."""
    if now.live >= min_size:
        return ""
    return f"the table holds {now.live} of the {min_size} {unit}s asked for by min_size; add more"
