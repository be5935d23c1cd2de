"""What the commands about tables have in common."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from shmtable.errors import ArenaNotFoundError, SpecError
from shmtable.protocols import census
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


def names_in_use(directory: str | None) -> list[str]:
    """Of the tables that some process has open, and that can be read.

    Raises:
        ArenaNotFoundError: there are none.
    """
    tables = census.tables(directory)
    names = [table.name for table in tables if table.state == census.IN_USE and table.stats]
    if not names:
        raise ArenaNotFoundError("no table is in use; 'shmtable ls' lists those that there are")
    return names


def chosen(options: argparse.Namespace) -> str:
    """NAME, or the only table in use where it was left out.

    Raises:
        ArenaNotFoundError: none is in use.
        SpecError: several are.
    """
    if options.name is not None:
        return str(options.name)
    names = names_in_use(options.directory)
    if len(names) > 1:
        raise SpecError(f"{len(names)} tables are in use; give the name of one: {', '.join(names)}")
    return names[0]


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
