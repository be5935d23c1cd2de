"""print a script that completes commands, options and names in your shell"""

from __future__ import annotations

import argparse
from importlib import import_module

from shmtable.errors import MissingExtraError

NAME = "completion"
DESCRIPTION = (
    "Print a script that lets the shell complete commands, options and the names of tables. The "
    "script is complete by itself: pressing Tab starts no Python. Needs the package shtab: "
    "pip install 'shmtable[cli]'."
)
EXAMPLES = """\
bash:  shmtable completion bash > ~/.local/share/bash-completion/completions/shmtable
zsh:   shmtable completion zsh > ~/.zfunc/_shmtable    # with fpath+=~/.zfunc before compinit"""
JSON = False

_PREAMBLE = {
    "bash": """\
_shmtable_names() {
  compgen -W "$(cd /dev/shm 2>/dev/null && ls -d shmtable-$(id -u)-* 2>/dev/null \\
    | sed "s/^shmtable-$(id -u)-//")" -- "$1"
}
""",
    "zsh": """\
_shmtable_names() {
  local -a names
  names=(/dev/shm/shmtable-$(id -u)-*(N:t))
  compadd -- ${names#shmtable-$(id -u)-}
}
""",
}
_NAMES = {"bash": "_shmtable_names", "zsh": "_shmtable_names"}


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    command.add_argument("shell", choices=("bash", "zsh"))


def run(options: argparse.Namespace) -> str:
    """Make the script.

    Raises:
        MissingExtraError: shtab is not installed.
    """
    try:
        shtab = import_module("shtab")
    except ImportError as error:
        raise MissingExtraError(
            "completion scripts need shtab, not installed here; install the extra that brings "
            "it: pip install 'shmtable[cli]'",
            packages=["shtab"],
            extra="cli",
        ) from error
    # Only now: this module is one of those that the parser is made of.
    from shmtable.cli.parser import parser

    whole = parser()
    _mark(whole, shtab.FILE)
    return str(shtab.complete(whole, shell=options.shell, preamble=_PREAMBLE))


def _mark(parser: argparse.ArgumentParser, file: object) -> None:
    """Say of every argument what it is completed with."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark(command, file)
        elif action.metavar == "NAME":
            action.complete = _NAMES  # type: ignore[attr-defined]
        elif action.metavar in ("FILE", "LEGACY", "V1", "DIR"):
            action.complete = file  # type: ignore[attr-defined]


def show(script: str) -> str:
    """The script itself."""
    return script
