"""What a report is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shmtable.types import LiveSequences, Stats


@dataclass(frozen=True)
class Moment:
    """One look: so many seconds after the first."""

    at_s: float
    stats: Stats


@dataclass(frozen=True)
class Seen:
    """All looks at one table.

    Attributes:
        name: of the table.
        written_at: seconds since the epoch.
        moments: at least one.
        sequences: at the end.
        description: see ``Onlooker.description``.
    """

    name: str
    written_at: float
    moments: list[Moment]
    sequences: LiveSequences
    description: dict[str, Any]

    @property
    def last(self) -> Stats:
        """The last look."""
        return self.moments[-1].stats

    @property
    def watched_s(self) -> float:
        """From the first look to the last."""
        return self.moments[-1].at_s

    def per_second(self, total: str) -> float:
        """How fast a total of ``Stats`` has risen; 0 for a single look."""
        first, last = self.moments[0].stats, self.last
        rise = float(getattr(last, total) - getattr(first, total))
        return rise / self.watched_s if self.watched_s else 0.0

    def rates(self, total: str) -> tuple[list[float], list[float]]:
        """Seconds, and how fast a total has risen up to then since the look before."""
        pairs = list(zip(self.moments, self.moments[1:], strict=False))
        return (
            [after.at_s for _, after in pairs],
            [
                (getattr(after.stats, total) - getattr(before.stats, total))
                / (after.at_s - before.at_s)
                for before, after in pairs
            ],
        )
