"""list the tables on this machine, and what state each is in"""

from __future__ import annotations

import argparse
from typing import Any

from shmtable.cli.tables import directory_argument, listed_json
from shmtable.cli.text import aligned, bytes_text, share_text
from shmtable.protocols import census

NAME = "ls"
DESCRIPTION = (
    "List the tables on this machine: those with a name, and those without one, which are called "
    "PID:DESCRIPTOR after a process that has them. Dead, damaged and foreign ones are named as "
    "such. Nothing is changed, and no table notices."
)
EXAMPLES = """\
$ shmtable ls
$ shmtable ls --directory checkpoints
$ shmtable ls --json | jq -r '.[] | select(.state == "dead") | .name'"""


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    directory_argument(command)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Look."""
    return [listed_json(found) for found in census.tables(options.directory)]


def show(found: list[dict[str, Any]]) -> str:
    """For people."""
    if not found:
        return "no tables"
    rows = [("NAME", "STATE", "PROCESSES", "FILL", "TRANSITIONS", "SEQUENCES", "MEMORY")]
    details = []
    for entry in found:
        stats = entry["stats"]
        counts = ("", "", "")
        if stats is not None:
            fill, transitions = share_text(stats["fill"]), f"{stats['transitions']:,}"
            counts = (fill, transitions, f"{stats['sequences']:,}")
        pids = " ".join(map(str, entry["pids"][:4])) + (" ..." if len(entry["pids"]) > 4 else "")
        taken = bytes_text(entry["taken_bytes"])
        rows.append((entry["name"], entry["state"], pids, *counts, taken))
        if entry["detail"]:
            details.append(f"{entry['name']}: {entry['detail']}")
    return "\n".join([*aligned(rows), *([""] if details else []), *details])
