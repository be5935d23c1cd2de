"""The page that is made of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench import tables
from tests.bench.aims import aims

_HEAD = """# Beside other replay buffers

Speed that anyone can check: one command, one run, every system on the same data on the same
machine. This page was made by `make bench PAGE=docs/benchmarks.md`; do not edit it.

What counts are the ratios. A time says something about the machine it was taken on, and about
what else ran there.
"""

_METHOD = """## How it is measured

Each buffer lives in a process of its own, in the interpreter it is installed in, and is used as
its documentation recommends for speed, with one torch thread. One driver lets all of them take
turns of a fraction of a second, round and round over every case and every buffer. All turns of one
case come one right after the other, each time in another order, since a machine that others use is
fast for some seconds and slow for some. A ratio is the median of the ratios of such turns, and so
need not be that of the times beside it. A time is the median of all calls; Reverb's dataset fetches
ahead in other threads between the calls, so that there it is the median turn's mean, the rate it
can keep up once it has handed out what lay ready.

The data are like HalfCheetah's: 17 and 6 floats, a reward, the next observation and the end, in
sequences of 200 transitions. Whatever a buffer wants prepared (rows shifted by one, a
TensorDict) is ready before the clock starts. A plain copy moves the bytes a call hands out or
takes in, contiguous, into fresh memory, from a place as large as the table; it is a floor and
no buffer.

cpprb samples single transitions only. TorchRL finds windows by a number of the trajectory, and
keeps what it has found from one call to the next. Reverb's windows are fixed when they are
inserted: one table for each length, with all windows of it. It has tables of 20,000 transitions
only, except where tables grow, because they take long to fill.
"""


def results_as_markdown(results: dict[str, Any]) -> str:
    """Everything but the method: what a run prints."""
    parts = [
        _described(results),
        "## Aims\n\n" + aims(results),
        "## One process\n\n" + tables.one_process(results["one"]),
        "Left out:\n\n" + tables.unable(results["one"]),
        "## Many processes\n\n" + tables.crowds(results["crowd"]),
        "## Growing tables\n\n" + tables.growth(results["growth"]),
        "Every sampler and ejector of shmtable:\n\n" + tables.growth(results["strategies"])
        if results["strategies"]
        else "",
        "## Where the time of a sample goes\n\n" + tables.split(results["split"]),
        "## Memory\n\n" + tables.memory(results["memory"], results["attached"]),
    ]
    return "\n".join(filter(None, parts))


_SHOWN = {
    "bench-processes": "Steps in and samples out, by the number of writers beside one learner.",
    "bench-size": "The time of a call, by the size of the table.",
    "bench-split": "Where the time of one sample goes.",
}


def page(results: dict[str, Any], pictures: Sequence[Path] = ()) -> str:
    """All of it, for the documentation; the pictures' paths are as the page says them."""
    notice = "\n".join(
        f"```{{note}}\n{text}\n```\n" for text in [results["settings"].get("note")] if text
    )
    shown = "\n".join(f"![{_SHOWN[path.stem]}]({path.as_posix()})\n" for path in pictures)
    drawn = f"## Drawn\n\n{shown}" if shown else ""
    return "\n".join(filter(None, (_HEAD, notice, results_as_markdown(results), drawn, _METHOD)))


def _described(results: dict[str, Any]) -> str:
    around, settings = results["machine"], results["settings"]
    lines = [
        f"{around['cores']} cores ({around['processor']}), {around['memory_gib']} GiB, "
        f"{around['system']}, load {around['load']} before the run. "
        f"{settings['transitions']:,} transitions unless said otherwise; {settings['turns']} "
        f"turns of {settings['seconds'] * 1000:.0f} ms each, of many processes "
        f"{settings['crowd_turns']} of {settings['crowd_seconds']:g} s.",
        "",
    ]
    for name, about in results["peers"].items():
        if "absent" in about:
            lines.append(f"- {name}: not measured ({about['absent']})")
        else:
            versions = ", ".join(f"{what} {number}" for what, number in about["versions"].items())
            lines.append(f"- {name}: {versions}")
    return "\n".join(lines) + "\n"
