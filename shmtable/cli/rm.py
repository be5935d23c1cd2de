"""remove a table; one that is in use only if forced"""

from __future__ import annotations

import argparse
import os
from typing import Any

from shmtable.cli.tables import listed_json, name_argument
from shmtable.cli.text import bytes_text
from shmtable.errors import ArenaInUseError, ArenaPermissionError, SpecError
from shmtable.protocols import census
from shmtable.protocols.census import Listed
from shmtable.shm import files, leftovers, places

NAME = "rm"
DESCRIPTION = (
    "Remove a table and say what went with it. One that is in use is not removed, unless forced: "
    "then its name goes at once, the processes that have it open go on with it, and its memory "
    "goes with the last of them. What is not yours, or no table, is never removed."
)
EXAMPLES = """\
$ shmtable rm replay
$ shmtable rm replay --directory checkpoints
$ shmtable rm replay --force"""

_OURS = (census.IN_USE, census.DEAD, census.AT_REST, census.UNCLEAN)
_BROKEN = (census.DAMAGED, census.UNFINISHED, census.OTHER_VERSION)


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    name_argument(command)
    command.add_argument("--force", action="store_true", help="even if it is in use")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Remove."""
    path, magic_link = census.find(options.name, options.directory)
    if magic_link:
        raise SpecError(
            f"{options.name} has no name that could be removed; it goes with the last process that "
            "has it open: end those"
        )
    found = census.listed(options.name, path)
    if found.state in _BROKEN:
        census.refuse_what_is_no_table(path)
    elif found.state not in _OURS:
        raise ArenaPermissionError(found.detail, path=path)
    with places.name_lock(path):
        key = files.key_of(os.lstat(path))
        if not leftovers.remove_unused(path):
            if not options.force:
                raise ArenaInUseError(
                    f"{options.name} is in use{_by(found)}; {_lost(found)} would be out of reach "
                    "for whoever has not opened it yet: end the processes that use it, or give "
                    "--force",
                    path=path,
                )
            leftovers.remove(path, key)
    return listed_json(found)


def _by(found: Listed) -> str:
    return f" by process {', '.join(map(str, found.pids))}" if found.pids else ""


def _lost(found: Listed) -> str:
    stats = found.stats
    taken = bytes_text(found.taken_bytes)
    if stats is None:
        return f"{taken} that cannot be read"
    return f"{stats.transitions:,} transitions in {stats.sequences:,} sequences ({taken})"


def show(removed: dict[str, Any]) -> str:
    """For people."""
    stats = removed["stats"]
    lost = bytes_text(removed["taken_bytes"])
    if stats is not None:
        lost = f"{stats['transitions']:,} transitions in {stats['sequences']:,} sequences, {lost}"
    return f"removed {removed['path']}: {lost}"
