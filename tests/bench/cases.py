"""What is measured: each case is one call of the table and a plain copy of the same bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    FifoEjectionStrategy,
    NextElementMapper,
    SyntheticDones,
    UniformSampleStrategy,
    VirtualColumn,
    Writer,
)

TRANSITIONS = 200_000
SEQUENCE_LENGTH = 200
OBS, ACTION = 17, 6  # HalfCheetah's


@dataclass(frozen=True)
class Case:
    """A call of the table, and the plain copy it is held against.

    Attributes:
        name: as shown.
        call: one operation on the table.
        copy: moves the bytes ``call`` must move, and does nothing else.
        moved_bytes: how many those are.
        aim_us: the median wanted on two ordinary cores, or None.
    """

    name: str
    call: Callable[[], Any]
    copy: Callable[[], Any]
    moved_bytes: int
    aim_us: float | None


def columns() -> list[Column]:
    """HalfCheetah's columns: the next observation and the end are virtual."""
    return [
        Column("obs", (OBS,), "float32"),
        VirtualColumn("next_obs", (OBS,), "float32", target_name="obs", mapper=NextElementMapper),
        Column("actions", (ACTION,), "float32"),
        Column("rewards", (), "float32"),
        VirtualColumn("dones", (), "bool", target_name="actions", mapper=SyntheticDones),
    ]


def random_sequence(random: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    """A sequence of ``SEQUENCE_LENGTH`` transitions as a worker has it: arrays of float32."""
    return {
        "obs": random.random((SEQUENCE_LENGTH + 1, OBS), np.float32),
        "actions": random.random((SEQUENCE_LENGTH, ACTION), np.float32),
        "rewards": random.random(SEQUENCE_LENGTH, np.float32),
    }


def cases(transitions: int, device: torch.device) -> Iterator[Case]:
    """All cases over one full table, which is closed when the last has been measured."""
    random = np.random.default_rng(0)
    identities = itertools.count()
    with ArrayMemoryTable(
        columns=columns(),
        maxlen=transitions,
        sampler=UniformSampleStrategy(),
        ejector=FifoEjectionStrategy(),
        device=device,
        seed=0,
    ) as table:
        for _ in range(transitions // SEQUENCE_LENGTH):
            table.add_sequence(next(identities), random_sequence(random))
        for count, length in ((256, 1), (64, 32)):
            yield _sampling(table, count, length, device)
        if device.type == "cpu":
            yield _adding(table, identities, random)
            # Every so many steps a sequence of them goes into the table, which is full.
            with table.writer(chunk=SEQUENCE_LENGTH) as writer:
                yield _appending(writer, random)
                writer.drop()


def _sampling(table: ArrayMemoryTable, count: int, length: int, device: torch.device) -> Case:
    rows = table.maxlen
    sample = table.sample(count, length)
    # As large as the table's columns, so that a copy finds its source as cold as a sample does.
    sources = [
        torch.zeros((rows, *column.shape[1:]), dtype=column.dtype) for column in sample.values()
    ]
    wanted = count * length
    starts = itertools.cycle(
        np.random.default_rng(1).integers(0, rows - wanted, 4096).tolist() if rows > wanted else [0]
    )

    def copy() -> list[torch.Tensor]:
        start = next(starts)
        return [
            source[start : start + wanted].clone().to(device, non_blocking=True)
            for source in sources
        ]

    return Case(
        f"sample({count}, {length})",
        lambda: table.sample(count, length),
        copy,
        sum(column.numel() * column.element_size() for column in sample.values()),
        80.0,
    )


def _adding(
    table: ArrayMemoryTable, identities: Iterator[int], random: np.random.Generator
) -> Case:
    # The table is full: every add ejects the oldest sequence, as it does for most of a run.
    sequences = itertools.cycle([random_sequence(random) for _ in range(64)])
    sources = itertools.cycle([random_sequence(random) for _ in range(64)])
    size = {name: len(rows) for name, rows in next(sequences).items()}
    targets = {
        name: np.zeros((table.maxlen, *rows.shape[1:]), rows.dtype)
        for name, rows in next(sources).items()
    }
    starts = itertools.cycle(range(0, table.maxlen - SEQUENCE_LENGTH - 1, SEQUENCE_LENGTH))

    def copy() -> None:
        start = next(starts)
        for name, rows in next(sources).items():
            targets[name][start : start + size[name]] = rows

    return Case(
        f"add_sequence of {SEQUENCE_LENGTH} steps",
        lambda: table.add_sequence(next(identities), next(sequences)),
        copy,
        sum(rows.nbytes for rows in next(sources).values()),
        50.0,
    )


def _appending(writer: Writer, random: np.random.Generator) -> Case:
    sequence = random_sequence(random)
    steps = [
        {
            "obs": sequence["obs"][step],
            "actions": sequence["actions"][step],
            "rewards": float(sequence["rewards"][step]),
        }
        for step in range(SEQUENCE_LENGTH)
    ]
    coming, places = itertools.cycle(steps), itertools.cycle(range(SEQUENCE_LENGTH))
    targets = {name: np.zeros_like(rows) for name, rows in sequence.items()}

    def copy() -> None:
        place = next(places)
        for name, value in next(coming).items():
            targets[name][place] = value

    return Case(
        "append of a step",
        lambda: writer.append(**next(coming)),
        copy,
        sum(rows[0].nbytes for rows in sequence.values()),
        5.0,
    )
