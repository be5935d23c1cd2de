"""read a file to its last byte and compare every checksum"""

from __future__ import annotations

import argparse
from typing import Any

from shmtable.cli.describing import as_json, one_line
from shmtable.cli.progress import progress_bar
from shmtable.cli.warned import warnings_told
from shmtable.formats import verify

NAME = "check"
DESCRIPTION = (
    "Check everything in a file that a table was stored in: that it can be restored, with every "
    "row as it was stored. Ends with 0 if so, and with 1 and the reason if not."
)
EXAMPLES = "$ shmtable file check replay.zip && echo sound"


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    command.add_argument("file", metavar="FILE", help="with its suffix, for example replay.zip")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Verify; returns the file's description."""
    with warnings_told(), progress_bar(f"checking {options.file}") as progress:
        return as_json(verify(options.file, progress=progress))


def show(found: dict[str, Any]) -> str:
    """For people."""
    return f"{found['path']} is sound: {one_line(found)}"
