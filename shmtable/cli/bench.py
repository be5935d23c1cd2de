"""measure adding and sampling on this machine, in a few seconds"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from shmtable.cli.text import aligned, bytes_text
from shmtable.columns import Column, VirtualColumn
from shmtable.mappers import NextElementMapper
from shmtable.strategies import FifoEjectionStrategy, UniformSampleStrategy
from shmtable.table import ArrayMemoryTable

NAME = "bench"
DESCRIPTION = (
    "Measure on this machine: sequences of 100 transitions with 64 numbers each are added, and 32 "
    "windows of 16 transitions sampled, alone and beside a process that adds all the time. A plain "
    "copy of as many bytes tells what the memory gives. What other programs do meanwhile counts, "
    "so look at several runs."
)
EXAMPLES = """\
$ shmtable bench
$ shmtable bench --seconds 5 --json"""

_WIDTH, _LENGTH, _MAXLEN = 64, 100, 100_000
_WINDOWS, _STEPS = 32, 16
_ROW_BYTES = 4 * _WIDTH + 8


def arguments(command: argparse.ArgumentParser) -> None:
    """What it is called with."""
    command.add_argument(
        "--seconds", type=_seconds, default=1.0, metavar="S", help="for each measurement (1)"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.05 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.05 and 3600")
    return value


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure."""
    torch.set_num_threads(1)  # one process is measured, and what a worker has is one thread
    with ArrayMemoryTable(
        Column("obs", (_WIDTH,), "float32"),
        VirtualColumn("next_obs", (_WIDTH,), "float32", "obs", NextElementMapper),
        Column("actions", (), "int64"),
        maxlen=_MAXLEN,
        sampler=UniformSampleStrategy(),
        ejector=FifoEjectionStrategy(),
    ) as table:
        found = {"machine": _machine(), "seconds": options.seconds}
        found["add"] = _measured(_adder(table), _LENGTH, _ROW_BYTES, options.seconds)
        drawn, row_bytes = _WINDOWS * _STEPS, _ROW_BYTES + 4 * _WIDTH

        def sample() -> None:
            table.sample(_WINDOWS, _STEPS)

        found["sample"] = _measured(sample, drawn, row_bytes, options.seconds)
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        writer = context.Process(target=_add_for_ever, args=(table, ready), daemon=True)
        writer.start()
        try:
            if not ready.wait(120):
                raise TimeoutError("the process that adds did not start within 120 s; try again")
            found["sample_beside_writer"] = _measured(sample, drawn, row_bytes, options.seconds)
        finally:
            writer.kill()
            writer.join()
        found["copy"] = _measured(_copier(drawn * row_bytes), drawn, row_bytes, options.seconds)
    return found


def _machine() -> dict[str, Any]:
    return {
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
    }


def _adder(table: ArrayMemoryTable, first: int = 0) -> Callable[[], None]:
    sequence = {
        "obs": torch.rand(_LENGTH + 1, _WIDTH),
        "actions": torch.zeros(_LENGTH, dtype=torch.int64),
    }
    identity = first

    def add() -> None:
        nonlocal identity
        identity += 1
        table.add_sequence(identity, sequence)

    return add


def _add_for_ever(table: ArrayMemoryTable, ready: Any) -> None:
    torch.set_num_threads(1)
    add = _adder(table, 1 << 40)
    add()
    ready.set()
    while True:
        add()


def _copier(count: int) -> Callable[[], None]:
    source, target = torch.ones(count, dtype=torch.uint8), torch.empty(count, dtype=torch.uint8)

    def copy() -> None:
        target.copy_(source)

    return copy


def _measured(
    call: Callable[[], None], transitions: int, row_bytes: int, seconds: float
) -> dict[str, float]:
    call()  # what only the first one pays for
    taken_s: list[float] = []
    began = now = time.perf_counter()
    while now < began + seconds:
        call()
        before, now = now, time.perf_counter()
        taken_s.append(now - before)
    rate = len(taken_s) * transitions / (now - began)
    return {
        "calls": len(taken_s),
        "median_s": statistics.median(taken_s),
        "p99_s": sorted(taken_s)[int(0.99 * (len(taken_s) - 1))],
        "transitions_per_s": rate,
        "bytes_per_s": rate * row_bytes,
    }


def show(found: dict[str, Any]) -> str:
    """For people."""
    labels = {
        "add": "add a sequence",
        "sample": "sample",
        "sample_beside_writer": "sample, another process adding",
        "copy": "copy the bytes of a sample",
    }
    rows = [("", "MEDIAN", "99 % WITHIN", "TRANSITIONS/S", "BYTES/S")]
    for key, label in labels.items():
        entry = found[key]
        rows.append(
            (
                label,
                f"{entry['median_s'] * 1e6:,.0f} us",
                f"{entry['p99_s'] * 1e6:,.0f} us",
                f"{entry['transitions_per_s']:,.0f}",
                f"{bytes_text(entry['bytes_per_s'])}",
            )
        )
    machine = found["machine"]
    return "\n".join(
        [
            f"{machine['processors']} processors, Python {machine['python']}, "
            f"torch {machine['torch']}",
            "",
            *aligned(rows),
        ]
    )
