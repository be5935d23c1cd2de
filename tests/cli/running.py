"""Running the command as a user does, and tables to run it on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.multiprocess.recipe import link
from tests.tables import small_sequence

ROOT = Path(__file__).parents[2]


def shmtable(*arguments: str, code: int = 0) -> tuple[str, str]:
    """Standard output and standard error of a command that ends with ``code``."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "shmtable", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == code, (arguments, ended.stdout, ended.stderr)
    return ended.stdout, ended.stderr


def fill(table, count: int = 5, length: int = 20) -> None:
    """Add so many sequences and sample some windows."""
    for identity in range(count):
        table.add_sequence(identity, small_sequence(identity, length))
    table.sample(10, 4)


def add_until_told(table) -> None:
    """A member that adds and samples until the test says something."""
    identity = 0
    while not link().told():
        table.add_sequence(identity, small_sequence(identity % 1000, 20))
        table.sample(4, 5)
        if identity == 0:
            link().tell("adding")
        identity += 1
    link().hear()
