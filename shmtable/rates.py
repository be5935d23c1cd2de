"""How fast a table's totals rise: the difference of two looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shmtable.types import Stats


@dataclass(frozen=True)
class Rates:
    """What went on between two looks, per second of time.

    Attributes:
        interval_s: between the looks.
        transitions_added, sequences_added, transitions_sampled, windows_sampled,
            transitions_removed, sequences_removed: per second.
        replay_ratio: of the interval; None if nothing was added in it.
        oldest_age_s: about how long ago the oldest sequence was added, at this rate; None if
            nothing was added.
        adds_waited, samples_waited: processes that waited, on average.
        lock_waits: per second.
        lock_waited: share of the time, 0 to 1 for each process.
        by_process: transitions added per second, by process id.
    """

    interval_s: float
    transitions_added: float
    sequences_added: float
    transitions_sampled: float
    windows_sampled: float
    transitions_removed: float
    sequences_removed: float
    replay_ratio: float | None
    oldest_age_s: float | None
    adds_waited: float
    samples_waited: float
    lock_waits: float
    lock_waited: float
    by_process: dict[int, float]

    @classmethod
    def between(cls, before: Stats, after: Stats, interval_s: float) -> Rates:
        """The rates from ``before`` to ``after``, which was so much later."""

        def rate(name: str) -> float:
            return float(getattr(after, name) - getattr(before, name)) / interval_s

        added = rate("transitions_added")
        known = {process.pid: process.transitions_added for process in before.processes}
        return cls(
            interval_s=interval_s,
            transitions_added=added,
            sequences_added=rate("sequences_added"),
            transitions_sampled=rate("transitions_sampled"),
            windows_sampled=rate("windows_sampled"),
            transitions_removed=rate("transitions_removed"),
            sequences_removed=rate("sequences_removed"),
            replay_ratio=rate("transitions_sampled") / added if added > 0 else None,
            oldest_age_s=after.oldest_age_transitions / added if added > 0 else None,
            adds_waited=rate("adds_waited_s"),
            samples_waited=rate("samples_waited_s"),
            lock_waits=rate("lock_waits"),
            lock_waited=rate("lock_waited_s"),
            by_process={
                process.pid: (process.transitions_added - known.get(process.pid, 0)) / interval_s
                for process in after.processes
            },
        )

    def as_json(self) -> dict[str, Any]:
        """For programs: what is per second says so in its name."""
        plain = ("interval_s", "replay_ratio", "oldest_age_s", "adds_waited", "samples_waited")
        found = {
            name if name in (*plain, "lock_waited") else f"{name}_per_s": value
            for name, value in vars(self).items()
            if name != "by_process"
        }
        by_pid = {str(pid): rate for pid, rate in self.by_process.items()}
        return {**found, "transitions_added_per_s_by_pid": by_pid}
