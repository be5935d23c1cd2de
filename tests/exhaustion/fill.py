"""Fills a table until there is no memory for it, and looks at what is left.

``python -m tests.exhaustion.fill NAME [DIRECTORY]`` prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import NamedTuple

from shmtable import ArrayMemoryTable, SharedMemoryError
from tests.multiprocess import content

WIDTH = 256  # 2 KiB a transition
STEPS = 50


class Filled(NamedTuple):
    """What came of it.

    Attributes:
        sequences: that were added.
        text: of the error that the next one got.
        wrong: what was not as it should be afterwards.
    """

    sequences: int
    text: str
    wrong: list[str]


def add(table: ArrayMemoryTable, identity: int) -> None:
    """One sequence of 100 KiB."""
    table.add_sequence(identity, content.sequence(identity, STEPS, width=WIDTH))


def fill(name: str | None, directory: str | None) -> Filled:
    """Make a table that would hold 2 GiB, and add until that fails."""
    with content.make(WIDTH, name=name, directory=directory, maxlen=1_000_000) as table:
        count = 0
        try:
            while True:
                add(table, count)
                count += 1
        except SharedMemoryError as error:
            return Filled(count, str(error), wrong_with(table, count))


def wrong_with(table: ArrayMemoryTable, count: int) -> list[str]:
    """Whether the first ``count`` sequences are there, whole, and the room they have is used on."""
    wrong = [str(finding) for finding in table.check()]
    if table.identities().tolist() != list(range(count)):
        wrong.append(f"{table.identities()} is not the first {count}")
    for identity in range(count):
        wrong += content.wrong_with_sequence(table.sequence(identity), identity)
    wrong += content.wrong_with(table.sample(64, 8), 8)
    table.remove(0)
    add(table, count)
    wrong += content.wrong_with_sequence(table.sequence(count), count)
    if table.stats().writing_transitions or table.stats().recoveries:
        wrong.append(f"something was left half done: {table.stats()}")
    return wrong + [str(finding) for finding in table.check()]


if __name__ == "__main__":
    place = [*sys.argv[1:], None, None][:2]
    print(json.dumps({"pid": os.getpid(), **fill(*place)._asdict()}))
