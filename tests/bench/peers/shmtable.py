"""shmtable itself."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import shmtable
from shmtable import (
    ArrayMemoryTable,
    Column,
    EndAlignedSampleStrategy,
    MixtureSampleStrategy,
    NextElementMapper,
    PrioritizedSampleStrategy,
    SyntheticDones,
    UniformSampleStrategy,
    VirtualColumn,
    Writer,
)
from tests.bench.peers.base import Arrays, Call, Cannot, Setup, Shared, in_turn, sequences


def versions() -> dict[str, str]:
    """See ``Peer``."""
    return {"shmtable": shmtable.__version__, "torch": torch.__version__, "numpy": np.__version__}


# Those that are made of others.
_SAMPLERS = {
    "EndAligned": lambda: EndAlignedSampleStrategy(UniformSampleStrategy(), 0.5),
    "Mixture": lambda: MixtureSampleStrategy(
        [(0.8, PrioritizedSampleStrategy()), (0.2, UniformSampleStrategy())]
    ),
}


def make(setup: Setup, **options: Any) -> ArrayMemoryTable:
    """An empty table; the next observation and the end are virtual columns."""
    layout = setup.columns
    columns: list[Column] = [
        Column(name, shape, dtype) for name, (shape, dtype) in layout.columns.items()
    ]
    if layout.follows:
        shape, dtype = layout.columns["obs"]
        columns += [
            VirtualColumn("next_obs", shape, dtype, "obs", NextElementMapper),
            VirtualColumn("dones", (), "bool", "actions", SyntheticDones),
        ]
    sampler = setup.sampler or ("Prioritized" if setup.priorities else "Uniform")
    return ArrayMemoryTable(
        columns=columns,
        maxlen=setup.transitions,
        sampler=_SAMPLERS[sampler]()
        if sampler in _SAMPLERS
        else getattr(shmtable, f"{sampler}SampleStrategy")(),
        ejector=getattr(shmtable, f"{setup.ejector or 'Fifo'}EjectionStrategy")(),
        seed=0,
        **options,
    )


def converted(arrays: Arrays, form: str) -> dict[str, Any]:
    """A sequence as tensors or as lists of steps."""
    if form == "tensors":
        return {name: torch.from_numpy(rows) for name, rows in arrays.items()}
    if form == "lists":
        return {name: list(rows) for name, rows in arrays.items()}
    return dict(arrays)


class Ours:
    """See ``Table``."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.table = make(setup)
        self._writer: Writer | None = None
        self._identities = itertools.count()
        source = sequences(setup, setup.steps)
        for _ in range(setup.transitions // setup.steps):
            self.table.add_sequence(next(self._identities), next(source))

    def sampler(self, count: int, length: int) -> Call:
        """See ``Table``."""
        return lambda: self.table.sample(count, length)

    def updater(self, count: int) -> Call:
        """See ``Table``."""
        if not self._setup.priorities:
            raise Cannot("no priorities in this table")
        points = in_turn(lambda: self.table.sample(count, 1).points)
        priorities = np.random.default_rng(0).random(count)
        return lambda: self.table.update_priorities(next(points), priorities)

    def adder(self, steps: int, form: str) -> Call:
        """See ``Table``."""
        source = sequences(self._setup, steps)
        ready: Iterator[dict[str, Any]] = itertools.cycle(
            [converted(next(source), form) for _ in range(16)]
        )
        return lambda: self.table.add_sequence(next(self._identities), next(ready))

    def appender(self) -> Call:
        """Appends steps to an episode, which is cut into sequences."""
        sequence = next(sequences(self._setup, self._setup.steps))
        turn = itertools.cycle(
            [{name: rows[step] for name, rows in sequence.items()}
             for step in range(self._setup.steps)]
        )  # fmt: skip
        self._writer = writer = self.table.writer(chunk=self._setup.steps)
        return lambda: writer.append(**next(turn))

    def close(self) -> None:
        """See ``Table``."""
        if self._writer is not None:
            self._writer.drop()
        self.table.close()


def open(setup: Setup) -> Ours:  # noqa: A001
    """See ``Peer``."""
    return Ours(setup)


def writer(table: ArrayMemoryTable, number: int) -> Call:
    """Adds whole sequences."""
    source = sequences(Setup(), 200, seed=number)
    identities = itertools.count(number << 40)
    return lambda: table.add_sequence(next(identities), next(source))


def watch(table: ArrayMemoryTable) -> Any:
    """Counts how long this process holds the table's lock, and waits for it.

    Reads the note that the guard leaves when it has got the lock; it costs about a microsecond a
    section, so turns that are watched are not timed.
    """
    guard = table._core.guard
    kind, release, words = type(guard), guard._release, guard._words
    counted = [0, 0]
    asked = [0]
    run = kind.run

    def watched(self: Any, body: Any, *args: Any, timeout_s: float | None = 60.0) -> Any:
        if self is guard:
            asked[0] = time.monotonic_ns()
        return run(self, body, *args, timeout_s=timeout_s)

    def released(token: Any) -> Any:
        since = words[guard._note_since_ns]
        counted[0] += time.monotonic_ns() - since
        counted[1] += max(since - asked[0], 0)
        return release(token)

    kind.run = watched  # type: ignore[method-assign]
    guard._release = released

    def read() -> tuple[int, int]:
        kind.run = run  # type: ignore[method-assign]
        guard._release = release
        return counted[0], counted[1]

    return read


def share(setup: Setup) -> Shared:
    """See ``Peer``."""
    table = make(setup)
    first = writer(table, 99)
    for _ in range(setup.transitions // setup.steps):
        first()
    return Shared("spawn", table, writer, lambda: table.sample(256, 1), watch=watch)


#: Parts of a sample, by the function that is timed; the others' time is what is left.
_PARTS = {
    "draw, under the lock": "_pick",
    "gather the columns": "_gather",
    "validate, under the lock": "_validate_locked",
}


def split(count: int, length: int, calls: int) -> dict[str, float]:
    """Median microseconds of each part of ``sample``; what is timed costs a little more."""
    ours = Ours(Setup())
    read: Any = sys.modules["shmtable.protocols.read"]
    kept = {part: getattr(read, name) for part, name in _PARTS.items() if hasattr(read, name)}
    spent: dict[str, list[int]] = {part: [] for part in kept}

    def timed(part: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            begin = time.perf_counter_ns()
            result = function(*args)
            spent[part][-1] += time.perf_counter_ns() - begin
            return result

        return call

    whole = []
    for part, function in kept.items():
        setattr(read, _PARTS[part], timed(part, function))
    try:
        for _ in range(calls):
            for times in spent.values():
                times.append(0)
            begin = time.perf_counter_ns()
            ours.table.sample(count, length)
            whole.append(time.perf_counter_ns() - begin)
    finally:
        for part, function in kept.items():
            setattr(read, _PARTS[part], function)
        ours.close()
    parts = {part: float(np.median(times)) / 1000 for part, times in spent.items()}
    return {**parts, "all else": max(float(np.median(whole)) / 1000 - sum(parts.values()), 0.0)}
