"""A program of its own that attaches to a table by name; run by the tests, started separately.

``python -m tests.multiprocess.outsider NAME [DIRECTORY]`` prints what it found as JSON, adds one
sequence, and exits 0; it exits 1 with a traceback when anything is not as it should be.
"""

from __future__ import annotations

import json
import sys

import torch

from shmtable import ArrayMemoryTable
from tests.multiprocess import content

IDENTITY = 1_000_000


def main(name: str, directory: str | None = None) -> None:
    torch.set_num_threads(1)
    with ArrayMemoryTable.attach(name, directory=directory) as table:
        identities = table.identities().tolist()
        wrong = content.wrong_with(table.sample(100, 2), 2)
        for identity in identities:
            wrong += content.wrong_with_sequence(table.sequence(identity), identity)
        wrong += [str(finding) for finding in table.check()]
        table.add_sequence(IDENTITY, content.sequence(IDENTITY, 3))
        print(json.dumps({"identities": identities, "size": table.size(), "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
