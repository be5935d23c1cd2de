"""What the commands about tables have in common."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from shmtable.protocols.census import Listed
from shmtable.types import Stats


def name_argument(command: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """NAME and --directory."""
    command.add_argument(
        "name",
        metavar="NAME",
        nargs="?" if optional else None,
        help="as given to name=, or PID:DESCRIPTOR as 'shmtable ls' shows it"
        + ("; may be left out if only one table is in use" if optional else ""),
    )
    directory_argument(command)


def directory_argument(command: argparse.ArgumentParser) -> None:
    """--directory."""
    command.add_argument(
        "--directory", metavar="DIR", help="as given to directory=, for tables on disk"
    )


def stats_json(stats: Stats) -> dict[str, Any]:
    """All of it, in types that JSON knows; keys are the names that ``Stats`` has."""
    return {
        **asdict(stats),
        "fill": stats.fill,
        "transitions_removed": stats.transitions_removed,
        "replay_ratio": stats.replay_ratio,
    }


def listed_json(found: Listed) -> dict[str, Any]:
    """One table, in types that JSON knows."""
    return {
        "name": found.name,
        "path": found.path,
        "state": found.state,
        "detail": found.detail,
        "pids": list(found.pids),
        "taken_bytes": found.taken_bytes,
        "stats": None if found.stats is None else stats_json(found.stats),
    }
