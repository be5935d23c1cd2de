"""run the demo: actor processes and a learner solve CartPole-v1 through one table"""

from __future__ import annotations

import argparse

from shmtable.demo.__main__ import main

NAME = "demo"
DESCRIPTION = ""
JSON = False
OWN_HELP = False


def arguments(command: argparse.ArgumentParser) -> None:
    """Whatever the demo understands, ``--help`` among it."""
    command.add_argument("rest", nargs=argparse.REMAINDER)


def run(options: argparse.Namespace) -> None:
    """Run it; it ends with exit codes of its own."""
    raise SystemExit(main(options.rest))


def show(_: None) -> str:
    """It has said everything itself."""
    return ""
