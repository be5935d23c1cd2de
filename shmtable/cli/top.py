"""watch tables live: rates in and out, fill, ages, waits, and who is still there"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

from shmtable.cli.screen import Screen
from shmtable.cli.stat import process_rows
from shmtable.cli.tables import name_argument, names_in_use, stats_json
from shmtable.cli.text import aligned, bytes_text, duration_text, number_text, share_text
from shmtable.errors import ArenaError
from shmtable.onlooker import Onlooker
from shmtable.rates import Rates

NAME = "top"
DESCRIPTION = (
    "Watch a table, or several in one line each: rates in and out, fill, replay ratio, ages, waits "
    "for locks and limiter, and each process's last sign of life. Tables are only read, without "
    "their locks: the run does not notice. Ends with Ctrl-C, or by itself when the last process "
    "has let the table go. Where standard output is no terminal, one page follows the other; with "
    "--json, one line of JSON per interval."
)
EXAMPLES = """\
$ shmtable top
$ shmtable top replay --interval 5
$ shmtable top replay --once --json | jq .rates.transitions_added_per_s"""


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    name_argument(command, optional=True)
    command.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="S", help="seconds between looks (1)"
    )
    command.add_argument("--once", action="store_true", help="one interval, and then end")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.01 and 86400")
    return value


def run(options: argparse.Namespace) -> Any:
    """Watch until nothing is left to watch, or for one interval."""
    names = _names(options)
    watched = [_Watched(name, options.directory) for name in names]
    try:
        if options.once:
            time.sleep(options.interval)
            found = [one.look() for one in watched]
            return found[0] if len(found) == 1 else found
        _watch(watched, options)
    except KeyboardInterrupt:
        pass
    finally:
        for one in watched:
            one.close()
    return None


def _names(options: argparse.Namespace) -> list[str]:
    if options.name is not None:
        return [options.name]
    return names_in_use(options.directory)


def _watch(watched: list[_Watched], options: argparse.Namespace) -> None:
    with Screen() as screen:
        for _ in _ticks(options.interval):
            alive = [one for one in watched if not one.gone]
            found = [one.look() for one in alive]
            if not found:
                break
            result: Any = found[0] if len(watched) == 1 else found
            if options.json:
                print(json.dumps(result), flush=True)
            else:
                screen.show(show(result))
    if not options.json:
        for one in watched:
            if one.gone:
                print(f"{one.name} is gone: {one.gone}")


def _ticks(interval_s: float) -> Iterator[None]:
    while True:
        time.sleep(interval_s)
        yield


class _Watched:
    """One table, and the look before."""

    def __init__(self, name: str, directory: str | None) -> None:
        self.name = name
        self.gone = ""
        self._onlooker = Onlooker(name, directory=directory)
        self._before = self._onlooker.stats()
        self._before_s = time.monotonic()

    def look(self) -> dict[str, Any]:
        """What there is, and what has gone on since the last look."""
        now_s = time.monotonic()
        try:
            stats = self._onlooker.stats()
        except ArenaError as error:
            self.gone = str(error)
            stats = self._before
        rates = Rates.between(self._before, stats, max(now_s - self._before_s, 1e-9))
        self._before, self._before_s = stats, now_s
        if not any(process.alive is not False for process in stats.processes):
            self.gone = "every process that had it open has ended or closed it"
        return {
            "name": self.name,
            "gone": bool(self.gone),
            "stats": stats_json(stats),
            "rates": rates.as_json(),
        }

    def close(self) -> None:
        """Let go."""
        self._onlooker.close()


def show(found: Any) -> str:
    """For people."""
    return "\n".join(_page(found) if isinstance(found, dict) else _list(found))


def _list(found: list[dict[str, Any]]) -> list[str]:
    rows = [("NAME", "FILL", "IN/S", "OUT/S", "RATIO", "PROCESSES", "MEMORY")]
    for entry in found:
        stats, rates = entry["stats"], entry["rates"]
        alive = sum(process["alive"] is not False for process in stats["processes"])
        rows.append(
            (
                entry["name"],
                share_text(stats["fill"]),
                number_text(rates["transitions_added_per_s"]),
                number_text(rates["transitions_sampled_per_s"]),
                _maybe(rates["replay_ratio"]),
                f"{alive} of {len(stats['processes'])} alive",
                bytes_text(stats["bytes_reserved"]),
            )
        )
    return aligned(rows)


def _page(found: dict[str, Any]) -> list[str]:
    stats, rates = found["stats"], found["rates"]
    age_s = rates["oldest_age_s"]
    age = "" if age_s is None else f", about {duration_text(age_s)} at this rate"
    rows = [
        (
            "fill",
            f"{share_text(stats['fill'])}: {stats['transitions']:,} of {stats['maxlen']:,} "
            f"transitions, {stats['sequences']:,} sequences, {bytes_text(stats['bytes_reserved'])}",
        ),
        ("in", _flow(stats, rates, "added", "sequences")),
        ("out", _flow(stats, rates, "sampled", "windows")),
        ("gone", _flow(stats, rates, "removed", "sequences")),
        (
            "replay ratio",
            f"{_maybe(rates['replay_ratio'])} now, {number_text(stats['replay_ratio'])} in all",
        ),
        ("oldest", f"{stats['oldest_age_transitions']:,} transitions ago{age}"),
        (
            "lock",
            f"{number_text(rates['lock_waits_per_s'])} waits/s, "
            f"{share_text(rates['lock_waited'])} of the time",
        ),
        ("adds wait", _waiting(rates["adds_waited"], stats["adds_blocked"])),
        ("samples wait", _waiting(rates["samples_waited"], stats["samples_blocked"])),
    ]
    by_pid = rates["transitions_added_per_s_by_pid"]
    processes = process_rows(stats["processes"], {int(pid): rate for pid, rate in by_pid.items()})
    return [found["name"], *aligned(rows), "", *aligned(processes)]


def _flow(stats: dict[str, Any], rates: dict[str, Any], what: str, units: str) -> str:
    return (
        f"{number_text(rates[f'transitions_{what}_per_s'])} transitions/s, "
        f"{number_text(rates[f'{units}_{what}_per_s'])} {units}/s; "
        f"{stats[f'transitions_{what}']:,} transitions in all"
    )


def _waiting(processes: float, blocked: str) -> str:
    """``processes`` have waited on average; and why the limiter holds the next one back."""
    text = f"{processes:.2f} processes on average"
    return f"{text}; the limiter: {blocked}" if blocked else text


def _maybe(value: float | None) -> str:
    return "-" if value is None else number_text(value)
