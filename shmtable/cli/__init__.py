"""The command line: ``shmtable COMMAND`` or ``python -m shmtable COMMAND``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from types import ModuleType

from shmtable._version import __version__
from shmtable.cli import file_check, file_convert, file_info, gc
from shmtable.errors import ShmTableError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; those it was started with if None.

    Returns:
        The exit code: 0 done, 1 an error that is explained on standard error.

    Raises:
        SystemExit: with code 2, for arguments that are no command, explained likewise.
    """
    options = _parser().parse_args(arguments)
    try:
        result = options.run(options)
    except (ShmTableError, OSError) as error:
        print(f"shmtable: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result) if options.json else options.show(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shmtable", description="Look after replay tables, in shared memory and in files."
    )
    parser.add_argument("--version", action="version", version=f"shmtable {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add(commands, gc)
    text = "check, describe and convert files that tables were stored in"
    file = commands.add_parser("file", help=text, description=f"{text.capitalize()}.")
    actions = file.add_subparsers(metavar="ACTION", required=True)
    for module in (file_check, file_info, file_convert):
        module.arguments(_add(actions, module))
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], module: ModuleType
) -> argparse.ArgumentParser:
    command = commands.add_parser(module.NAME, help=module.__doc__, description=module.DESCRIPTION)
    command.add_argument("--json", action="store_true", help="print JSON for programs")
    command.set_defaults(run=module.run, show=module.show)
    return command
