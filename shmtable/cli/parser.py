"""What the command line understands: one module for each command."""

from __future__ import annotations

import argparse
import textwrap
from types import ModuleType
from typing import Any

from shmtable._version import __version__
from shmtable.cli import (
    bench,
    check,
    completion,
    demo,
    file_check,
    file_convert,
    file_info,
    gc,
    ls,
    report,
    rm,
    stat,
    top,
)

_FILE = "check, describe and convert files that tables were stored in"
_EXAMPLES = """\
$ shmtable ls                        which tables are there
$ shmtable top                       watch the one in use; Ctrl-C ends it
$ shmtable stat replay               everything about one of them
$ shmtable report replay -o r.html   the same with pictures
$ shmtable gc                        remove what killed processes left behind
$ shmtable file info replay.zip      what is in a stored file

'shmtable COMMAND --help' explains each. Exit codes: 0 all is well, 1 an error or a problem found,
2 a call that is none."""


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments.

    A module says of its command NAME, DESCRIPTION, EXAMPLES, ``arguments(parser)``,
    ``run(options)``, which returns what JSON knows or None, and ``show(result)``, which makes text
    of it; its docstring is the line in the list. ``code(result)`` gives the exit code, where a
    result can be a bad one.
    """
    top_level = argparse.ArgumentParser(
        prog="shmtable",
        description="Look after replay tables, in shared memory and in files.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top_level.add_argument("--version", action="version", version=f"shmtable {__version__}")
    commands = top_level.add_subparsers(metavar="COMMAND", required=True)
    for module in (ls, stat, top, report, check, gc, rm):
        _add(commands, module)
    file = commands.add_parser("file", help=_FILE, description=f"{_FILE.capitalize()}.")
    actions = file.add_subparsers(metavar="ACTION", required=True)
    for module in (file_check, file_info, file_convert):
        _add(actions, module)
    for module in (bench, demo, completion):
        _add(commands, module)
    return top_level


def _add(commands: argparse._SubParsersAction[argparse.ArgumentParser], module: ModuleType) -> None:
    examples = getattr(module, "EXAMPLES", "")
    command = commands.add_parser(
        module.NAME,
        help=module.__doc__,
        description=textwrap.fill(module.DESCRIPTION, 98),
        epilog=f"examples:\n{textwrap.indent(examples.strip(), '  ')}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if getattr(module, "JSON", True):
        command.add_argument("--json", action="store_true", help="print JSON for programs")
    command.set_defaults(json=False, run=module.run, show=module.show)
    command.set_defaults(code=getattr(module, "code", _fine))
    module.arguments(command)


def _fine(_: Any) -> int:
    return 0
