"""The command line: ``shmtable COMMAND`` or ``python -m shmtable COMMAND``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from shmtable._version import __version__
from shmtable.cli import gc
from shmtable.errors import ShmTableError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; those it was started with if None.

    Returns:
        The exit code: 0 done, 1 an error that is explained on standard error.
    """
    options = _parser().parse_args(arguments)
    try:
        result = options.run(options)
    except ShmTableError as error:
        print(f"shmtable: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result) if options.json else options.show(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shmtable", description="Look after replay tables in shared memory."
    )
    parser.add_argument("--version", action="version", version=f"shmtable {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (gc,):
        command = commands.add_parser(
            module.NAME, help=module.__doc__, description=module.DESCRIPTION
        )
        command.add_argument("--json", action="store_true", help="print JSON for programs")
        command.set_defaults(run=module.run, show=module.show)
    return parser
