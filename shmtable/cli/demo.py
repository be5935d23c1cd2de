"""run the demo: actor processes and a learner solve CartPole-v1 through one table"""

from __future__ import annotations

import argparse

from shmtable.demo import options as demo
from shmtable.demo.__main__ import play

NAME = "demo"
DESCRIPTION = demo.DESCRIPTION
EXAMPLES = f"""\
$ shmtable demo
$ shmtable demo --actors 4 --time-limit 120

{demo.EXIT_CODES}"""
JSON = False


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    demo.add_arguments(command)


def run(options: argparse.Namespace) -> None:
    """Run it; it ends with exit codes of its own."""
    raise SystemExit(play(demo.chosen(options)))


def show(_: None) -> str:
    """It has said everything itself."""
    return ""
