"""What tests of writers share: small episodes, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from shmtable import (
    ArrayMemoryTable,
    Column,
    TagColumn,
    Writer,
)
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]


def steps_of(sequence: dict[str, Any], first: int = 0) -> Iterator[dict[str, Any]]:
    """The steps of a small sequence."""
    for step in range(first, len(sequence["actions"])):
        yield {name: rows[step] for name, rows in sequence.items()}


def play(writer: Writer, identity: int, length: int, **end: Any) -> list[int]:
    sequence = small_sequence(identity, length)
    for step in steps_of(sequence):
        writer.append(**step)
    return writer.end(obs=sequence["obs"][length], **end)


def values(sequence: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: np.asarray(column).tolist() for name, column in sequence.items()}


def part(sequence: dict[str, Any], first: int, last: int, **ahead: int) -> dict[str, list[Any]]:
    return {
        name: rows[first : last + ahead.get(name, 0)].tolist() for name, rows in sequence.items()
    }


def left(writer: Writer, steps: int) -> Writer:
    """A writer with an open episode of ``small_sequence(1, steps)``."""
    for step in steps_of(small_sequence(1, steps)):
        writer.append(**step)
    return writer


ACTIONS = Column("actions", (), "int64")
KEPT = {
    "columns": [Column("terminated", (), bool), Column("truncated", (1,), "float32")],
    "tags": [TagColumn("terminated", (), "float32"), TagColumn("truncated", (), bool)],
}
