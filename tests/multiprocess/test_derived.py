"""Derived columns while another process ejects and overwrites what they are computed from."""

from __future__ import annotations

from typing import Any

import numpy as np

from shmtable import (
    AgeMapper,
    ArrayMemoryTable,
    Column,
    FrameStack,
    NStepReturn,
    PreviousElementMapper,
    VirtualColumn,
)
from tests.multiprocess.recipe import Crew, link

LENGTH, STACK, N = 5, 3, 3
ROUNDS = 1500
# Two processes on one lock; small, so that nearly every sample meets an ejection.
MAXLEN = 40


def columns() -> list[Column]:
    return [
        Column("actions", (), "int64"),
        VirtualColumn("stack", (STACK,), "int64", "actions", FrameStack(STACK, pad="edge")),
        VirtualColumn("previous", (), "int64", "actions", PreviousElementMapper),
        VirtualColumn("sum", (), "float64", "actions", NStepReturn(N, 1.0)),
        VirtualColumn("age", (), "int64", "actions", AgeMapper),
    ]


def _add(table: ArrayMemoryTable, first: int) -> None:
    # Numbered through, so that an element says what lies around it, and how many came before.
    for identity in range(first, first + ROUNDS):
        table.add_sequence(identity, {"actions": 1 + identity * LENGTH + np.arange(LENGTH)})


def _add_and_wait(table: ArrayMemoryTable) -> None:
    _add(table, ROUNDS)
    link().hear()


def test_no_row_of_another_sequence_gets_in(make_table: Any) -> None:
    table = make_table(columns=columns(), maxlen=MAXLEN)
    _add(table, 0)
    with Crew("fork") as crew:
        writer = crew.add(_add_and_wait, table)
        crew.go()
        while (before := table.stats().transitions_added) < 2 * ROUNDS * LENGTH:
            writer.look()
            batch = table.sample(16, 2)
            after = table.stats().transitions_added
            action = batch["actions"].numpy()
            first = (action - 1) // LENGTH * LENGTH + 1
            last = first + LENGTH - 1
            stack = np.maximum(action[:, None] + np.arange(1 - STACK, 1), first[:, None])
            assert np.array_equal(batch["stack"].numpy(), stack)
            previous = np.where(action == first, 0, action - 1)
            assert np.array_equal(batch["previous"].numpy(), previous)
            following = action[:, None] + np.arange(N)
            total = np.where(following <= last[:, None], following, 0).sum(1)
            assert np.array_equal(batch["sum"].numpy(), total)
            # The newest transition's number is how many there are.
            added = batch["age"].numpy() + action
            assert before <= added.min() <= added.max() <= after
        writer.tell("end")
        crew.results()
