"""A program that forks after its parent has sampled with many threads; run by the tests.

OpenMP's threads do not survive a fork, but what it believes about them does: without the
library's fork hook a child hangs in its first parallel operation.
"""

from __future__ import annotations

import os
import select
import signal
import sys

import torch

from shmtable import ArrayMemoryTable
from tests.multiprocess import content

THREADS = 4
CHILD_S = 60.0
WIDTH = 64


def sample_widely(table: ArrayMemoryTable, who: str) -> None:
    """Samples and computes with enough data for torch to use all its threads."""
    sample = table.sample(512, 16)
    wrong = content.wrong_with(sample, 16)
    rows = torch.arange(100_000) % 1000
    torch.rand(1000, 64).index_select(0, rows).sum()
    (torch.rand(500, 500) @ torch.rand(500, 500)).sum()
    print(f"{who}: {'whole' if not wrong else wrong}", flush=True)


def in_child(work: object, *args: object) -> None:
    """Forks, runs ``work(*args)`` in the child, and waits for it, but not for ever."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(*args)  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    descriptor = os.pidfd_open(pid)
    ended, _, _ = select.select([descriptor], [], [], CHILD_S)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(descriptor)
    if not ended or status:
        sys.exit(f"the child {'failed' if ended else 'hangs'}")


def child(table: ArrayMemoryTable) -> None:
    """Samples, then lets a child of its own do the same."""
    sample_widely(table, "child")
    in_child(sample_widely, table, "grandchild")


def main() -> None:
    torch.set_num_threads(THREADS)
    with content.make(WIDTH, maxlen=20_000) as table:
        for identity in range(100):
            table.add_sequence(identity, content.sequence(identity, 100, width=WIDTH))
        sample_widely(table, "parent")
        in_child(child, table)


if __name__ == "__main__":
    main()
