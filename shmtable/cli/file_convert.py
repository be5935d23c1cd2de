"""write a file again in the present format"""

from __future__ import annotations

import argparse
from typing import Any

from shmtable.cli.describing import as_json, one_line
from shmtable.cli.progress import progress_bar
from shmtable.cli.warned import warnings_told
from shmtable.formats import convert, describe

NAME = "convert"
DESCRIPTION = (
    "Turn a Legacy file into a V1 file. The source is checked first, and the target replaced as a "
    "whole or not at all."
)
EXAMPLES = "$ shmtable file convert old.zip new.zip"


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    command.add_argument("source", metavar="LEGACY", help="the file there is, with its suffix")
    command.add_argument("target", metavar="V1", help="the file to write, with its suffix")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Convert; returns the target's description."""
    with warnings_told():
        with progress_bar(f"writing {options.target}") as progress:
            convert(options.source, options.target, progress=progress)
        return as_json(describe(options.target))


def show(found: dict[str, Any]) -> str:
    """For people."""
    return f"wrote {found['path']}: {one_line(found)}"
