"""say what is in a file: columns, sequences, their lengths, bytes"""

from __future__ import annotations

import argparse
from typing import Any

from shmtable.cli.describing import as_json, page
from shmtable.cli.warned import warnings_told
from shmtable.formats import describe

NAME = "info"
DESCRIPTION = (
    "Describe a file that a table was stored in. Its rows are not read; whether they are sound, "
    "'shmtable file check' tells."
)
EXAMPLES = """\
$ shmtable file info replay.zip
$ shmtable file info replay.zip --json | jq .transitions"""


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    command.add_argument("file", metavar="FILE", help="with its suffix, for example replay.zip")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Describe."""
    with warnings_told():
        return as_json(describe(options.file))


def show(found: dict[str, Any]) -> str:
    """For people."""
    return page(found)
