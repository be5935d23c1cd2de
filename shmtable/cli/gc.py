"""remove named tables that dead processes left behind"""

from __future__ import annotations

import argparse

from shmtable.shm import leftovers

NAME = "gc"
DESCRIPTION = (
    "Remove the named tables in shared memory that no living process has open. A table that is in "
    "use, or being created or attached at this moment, is never touched, nor is a table in a "
    "directory of yours."
)
EXAMPLES = "$ shmtable gc"


def arguments(_: argparse.ArgumentParser) -> None:
    """What it is called with: nothing."""


def run(_: argparse.Namespace) -> list[str]:
    """Remove leftovers; returns the files removed."""
    return leftovers.sweep()


def show(removed: list[str]) -> str:
    """For people."""
    if not removed:
        return "nothing to remove"
    return "\n".join(f"removed {path}" for path in removed)
