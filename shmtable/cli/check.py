"""walk every invariant of a table's index and say what is broken"""

from __future__ import annotations

import argparse
from typing import Any

from shmtable.cli.tables import chosen, name_argument
from shmtable.protocols import census, lookup
from shmtable.protocols.core import Core
from shmtable.protocols.disk import attach
from shmtable.shm import process
from shmtable.shm.address import Address, Holder
from shmtable.shm.arena import Arena

NAME = "check"
DESCRIPTION = (
    "Walk every invariant of a table, as table.check() does. Other than the commands that only "
    "look, this one opens the table as a process of yours does: it waits for the table's lock, "
    "holds it for the walk (up to seconds for hundreds of thousands of sequences), and repairs "
    "first what a killed process has left half done. Ends with 0 if the table is sound, and with 1 "
    "if not."
)
EXAMPLES = "$ shmtable check replay && echo sound"


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    name_argument(command, optional=True)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Attach and check."""
    name = chosen(options)
    core = _open(name, options.directory)
    try:
        findings = lookup.check(core)
        sequences, transitions = core.view.live_count, core.view.live_steps
    finally:
        core.close()
    return {
        "name": name,
        "sound": not findings,
        "sequences": sequences,
        "transitions": transitions,
        "findings": [{"rule": found.rule, "detail": found.detail} for found in findings],
    }


def _open(name: str, directory: str | None) -> Core:
    path, magic_link = census.find(name, directory)
    if not magic_link:
        return attach(name, directory, False, {})
    outside = census.open_outside(name, directory)  # says what is wrong with it, if anything is
    number = outside.look.header.id
    outside.close()
    pid, descriptor = map(int, name.split(":"))
    holder = Holder(pid, process.start_time(pid), descriptor)
    return Core.open(Arena.open(Address(number, None, None, None, (holder,))), {})


def show(found: dict[str, Any]) -> str:
    """For people."""
    if found["sound"]:
        return (
            f"{found['name']} is sound: {found['sequences']:,} sequences with "
            f"{found['transitions']:,} transitions"
        )
    lines = [f"  {entry['rule']}: {entry['detail']}" for entry in found["findings"]]
    return "\n".join([f"{found['name']} is not sound:", *lines])


def code(found: dict[str, Any]) -> int:
    """1 if something is broken."""
    return 0 if found["sound"] else 1
