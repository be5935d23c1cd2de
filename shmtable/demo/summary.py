"""The last words of a run."""

from __future__ import annotations

from pathlib import Path

from shmtable.demo.learner import Outcome
from shmtable.demo.meter import Meter
from shmtable.types import Stats


def summarise(outcome: Outcome, meter: Meter, stats: Stats, picture: Path | None) -> str:
    """A few lines: how it ended, what it took, what the table cost."""
    best = max((value for _, value in meter.evaluations), default=0.0)
    ratio = stats.windows_sampled / max(stats.transitions_added, 1)
    shares = sorted(meter.spent_s, key=meter.share, reverse=True)
    rows = {
        "outcome": f"{outcome.text} (exit code {outcome.exit_code})",
        "time": f"{meter.elapsed_s():.1f} s",
        "greedy policy": f"best mean return {best:.1f} in {len(meter.evaluations)} evaluations",
        "actors": f"{meter.episodes} episodes, {stats.transitions_added} steps",
        "learner": f"{meter.updates} updates, {stats.windows_sampled} transitions sampled",
        "replay ratio": f"{ratio:.1f} transitions sampled for every one added",
        "table": f"{stats.transitions} of {stats.maxlen} transitions ({stats.fill:.0%} full), "
        f"{stats.sequences_removed} episodes ejected",
        "sample latency": f"p50 {micros(meter, 50)}, p99 {micros(meter, 99)}",
        "sampling": f"{meter.share('sampling'):.1%} of the learner's time",
        "learner's time": ", ".join(f"{what} {meter.share(what):.1%}" for what in shares),
        "picture": "none" if picture is None else str(picture),
    }
    width = max(map(len, rows))
    return "\n".join(f"{label:>{width}}  {text}" for label, text in rows.items())


def micros(meter: Meter, percent: float) -> str:
    """A percentile of the time a sample took, in microseconds."""
    return f"{meter.latency_s(percent) * 1e6:.0f} µs"
