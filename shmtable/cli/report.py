"""write a page with pictures of a table: fill, rates, lengths, ages, who writes"""

from __future__ import annotations

import argparse
from typing import Any

from shmtable.cli.tables import chosen, name_argument
from shmtable.onlooker import Onlooker
from shmtable.report import write_report

NAME = "report"
DESCRIPTION = (
    "Write one HTML page about a table, complete in itself: fill and rates over the time watched, "
    "how long and how old its sequences are, how often each was sampled, priorities where there "
    "are any, and each process's share. The table is only read, without its lock. Needs "
    "matplotlib: pip install 'shmtable[watch]'."
)
EXAMPLES = """\
$ shmtable report replay
$ shmtable report replay -o report.html --watch 60"""


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    name_argument(command, optional=True)
    command.add_argument(
        "-o", "--output", metavar="FILE", help="the page; NAME-report.html if not given"
    )
    command.add_argument(
        "--watch", type=_seconds, default=3.0, metavar="S", help="how many seconds to watch (3)"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400")
    return value


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Watch and write."""
    name = chosen(options)
    output = options.output or f"{name.replace(':', '-')}-report.html"
    with Onlooker(name, directory=options.directory) as onlooker:
        write_report(onlooker, output, watch_s=options.watch)
    return {"name": name, "path": output}


def show(written: dict[str, Any]) -> str:
    """For people."""
    return f"wrote {written['path']}"
