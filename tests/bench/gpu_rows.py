"""What is measured on a GPU: each row beside what the device can do, or beside another buffer."""

from __future__ import annotations

import itertools
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    FifoEjectionStrategy,
    MemoryLoader,
    UniformEjectionStrategy,
    UniformSampleStrategy,
)
from tests.bench.cases import SEQUENCE_LENGTH, columns, random_sequence
from tests.bench.clock import Clock
from tests.device.places import Place
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link

FAILED = "failed"
WIDE = 64
TORN_WIDTH = 128


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        transitions: in every table.
        rounds: calls of each kind.
        large: (windows, transitions of each) of the sample beside a copy, and of a loader's batch.
        batches: of a loader.
        steps: of a learner.
        step_us: that each takes.
        seconds: that writers and a reader run together.
    """

    transitions: int = 400_000
    rounds: int = 300
    large: tuple[int, int] = (4096, 64)
    batches: int = 60
    steps: int = 300
    step_us: float = 2000.0
    seconds: float = 60.0


FULL = Effort()
LEAST = Effort(4000, 3, (16, 8), 8, 5, 200.0, 0.3)


@dataclass
class Row:
    """One measure.

    Attributes:
        measure: what it is.
        wanted: in words.
        value: what was measured; None where it could not be.
        reached: whether it is what is wanted.
        figures: everything behind it.
        why: why it could not be measured.
    """

    measure: str
    wanted: str
    value: float | None = None
    reached: bool | None = None
    figures: dict[str, float | None] = field(default_factory=dict)
    why: str = ""

    def json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


class Measures:
    """All rows.

    Args:
        place: where the columns are.
        clock: of the device.
        effort: how much.
    """

    def __init__(self, place: Place, clock: Clock, effort: Effort) -> None:
        self._place, self._clock, self._effort = place, clock, effort

    def rows(self) -> Iterator[Row]:
        """One after the other, in the order in which they are wanted."""
        for measure in (
            self.windows,
            self.single_steps,
            self.loader,
            self.learner,
            self.beside_torchrl,
            self.torn,
        ):
            try:
                found = measure()
                yield from found if isinstance(found, list) else [found]
            except Exception as error:  # one that cannot be had must not cost the others
                traceback.print_exc()
                yield Row(measure.__name__, "", why=f"{FAILED}: {error!r}")

    # -- tables ------------------------------------------------------------------------------

    @contextmanager
    def _table(self, five: bool, there: bool) -> Iterator[ArrayMemoryTable]:
        """A full table of five columns, or of one of 64 floats; on the device, or not."""
        sequences = self._effort.transitions // SEQUENCE_LENGTH
        with (
            self._place.chosen(),
            ArrayMemoryTable(
                columns=columns() if five else [Column("actions", (WIDE,), "float32")],
                maxlen=self._effort.transitions,
                max_sequences=sequences,
                sampler=UniformSampleStrategy(),
                ejector=FifoEjectionStrategy(),
                seed=0,
                **({"storage_device": self._place.storage_device} if there else {}),
            ) as table,
        ):
            random = np.random.default_rng(0)
            for identity in range(sequences):
                if five:
                    table.add_sequence(identity, random_sequence(random))
                else:
                    rows = random.random((SEQUENCE_LENGTH, WIDE), np.float32)
                    table.add_sequence(identity, {"actions": rows})
            yield table

    # -- rows --------------------------------------------------------------------------------

    def windows(self) -> Row:
        """Long windows of a wide column beside a copy of as many bytes within the device."""
        count, length = self._effort.large
        row = Row(f"sample({count}, {length}) of {WIDE} floats: share of a copy there", ">= 0.70")
        clock, rounds = self._clock, self._effort.rounds
        with self._table(five=False, there=True) as table:

            def draw() -> Any:
                return table.sample(count, length)

            size = draw()["actions"].numel() * 4
            # Cold, as the rows of a sample are: several take turns.
            ends = [
                [torch.ones(size, dtype=torch.uint8, device=clock.device) for _ in range(2)]
                for _ in range(3)
            ]
            turns = itertools.cycle(ends)

            def copy() -> Any:
                source, target = next(turns)
                return target.copy_(source)

            self._warm(draw, copy)
            backend: Any = table._core.memory.backend  # type: ignore[union-attr]
            copy_us = clock.device_us(copy, rounds)
            working_us = clock.working_us(backend, draw, rounds)
            kernels_us = clock.kernels_us(draw, rounds)
            row.figures = {
                "bytes": size,
                "copy, on the device, µs": copy_us,
                "copy, kernels alone, µs": clock.kernels_us(copy, rounds),
                "copy, GB/s": size / copy_us / 1000,
                "sample, kernels and transfers alone, µs": kernels_us,
                "sample, first to last of them, µs": working_us,
                "sample, wall, µs": clock.wall_us(draw, rounds),
                "copy, wall, µs": clock.wall_us(copy, rounds),
                **self._gathers(size, count, length),
            }
            device_us = working_us if kernels_us is None else kernels_us
            copied_us = row.figures["copy, kernels alone, µs"] or copy_us
            return _judged(row, copied_us / device_us, at_least=0.7)

    def _gathers(self, size: int, count: int, length: int) -> dict[str, float | None]:
        """The device's ways to copy windows, by themselves: which one a table had better use."""
        clock, rounds = self._clock, self._effort.rounds
        rows, wide = self._effort.transitions, 4 * WIDE
        memory = torch.ones(rows * wide, dtype=torch.uint8, device=clock.device)
        starts = torch.from_numpy(np.random.default_rng(1).integers(0, rows - length, count))
        index = starts.to(clock.device)
        found: dict[str, float | None] = {}
        for word in (torch.int64, torch.complex128):
            words, step = memory.view(word), word.itemsize
            view = words.as_strided((rows - length + 1, length * wide // step), (wide // step, 1))

            def select(view: Any = view) -> Any:
                return torch.index_select(view, 0, index)

            def take(view: Any = view) -> Any:
                return view[index]

            for name, call in (("index_select", select), ("indexing", take)):
                self._warm(call)
                found[f"{name} of {step} bytes each, µs"] = clock.device_us(call, rounds)
        return found

    def single_steps(self) -> list[Row]:
        """A small sample: every call counts."""
        clock, rounds = self._clock, self._effort.rounds
        with self._table(five=True, there=True) as table:

            def draw() -> Any:
                return table.sample(256, 1)

            self._warm(draw)
            backend: Any = table._core.memory.backend  # type: ignore[union-attr]
            wall_us = clock.wall_us(draw, 5 * rounds)
            working_us = clock.working_us(backend, draw, rounds)
            kernels_us = clock.kernels_us(draw, rounds)
        figures: dict[str, float | None] = {
            "wall, µs": wall_us,
            "first to last on the device, µs": working_us,
            "kernels and transfers alone, µs": kernels_us,
        }
        wall = Row("sample(256, 1) of 5 columns, µs", "<= 120", figures=figures)
        there = Row("sample(256, 1) of 5 columns, µs on the device", "<= 60", figures=figures)
        device_us = working_us if kernels_us is None else kernels_us
        return [_judged(wall, wall_us, at_most=120), _judged(there, device_us, at_most=60)]

    def loader(self) -> Row:
        """Large batches of a table in shared memory beside plain copies of pinned memory."""
        count, length = self._effort.large
        size, clock, batches = count * length * WIDE * 4, self._clock, self._effort.batches
        row = Row(f"loader, batches of {size >> 20} MiB: share of a plain copy", ">= 0.90")
        with self._table(five=False, there=False) as table:
            loader = MemoryLoader(
                table, count, length, "n", batches=batches, prefetch=2, device=clock.device
            )
            begin, first = 0, 4  # the pipe is full by then
            for number, batch in enumerate(loader):
                if number == first:
                    clock.wait()
                    begin = time.perf_counter_ns()
                del batch
            clock.wait()
            each_us = (time.perf_counter_ns() - begin) / 1000 / (batches - first - 1)
        sources = [clock.pinned(size).fill_(1) for _ in range(2)]
        targets = [torch.empty(size, dtype=torch.uint8, device=clock.device) for _ in range(2)]

        def copies() -> None:
            for number in range(batches):
                targets[number % 2].copy_(sources[number % 2], non_blocking=True)

        self._warm(copies)
        copy_us = clock.wall_us(copies, 3) / batches
        row.figures = {
            "bytes": size,
            "batch, µs": each_us,
            "copy, µs": copy_us,
            "copy, GB/s": size / copy_us / 1000,
            "torch threads": torch.get_num_threads(),
        }
        return _judged(row, copy_us / each_us, at_least=0.9)

    def learner(self) -> Row:
        """A learner that looks at its loss in every step."""
        clock, effort = self._clock, self._effort
        row = Row(
            f"steps of {effort.step_us / 1000:g} ms with prefetch beside a batch that is there",
            "< 1.05",
        )

        def step(batch: Any) -> None:
            clock.busy(effort.step_us)
            batch["obs"].sum().item()

        with self._table(five=True, there=False) as table:
            loader = MemoryLoader(
                table, 64, 32, "n", batches=effort.steps + 3, prefetch=2, device=clock.device
            )
            begin = 0
            for number, batch in enumerate(loader):
                if number == 3:
                    begin = time.perf_counter_ns()
                step(batch["default"])
            with_us = (time.perf_counter_ns() - begin) / 1000 / effort.steps
            batch = batch["default"]
            begin = time.perf_counter_ns()
            for _ in range(effort.steps):
                step(batch)
            without_us = (time.perf_counter_ns() - begin) / 1000 / effort.steps
        row.figures = {"with prefetch, µs": with_us, "batch there already, µs": without_us}
        return _judged(row, with_us / without_us, below=1.05)

    def beside_torchrl(self) -> Row:
        """Windows of five columns beside TorchRL's, both with the data on the device."""
        row = Row("sample(64, 32): times as fast as TorchRL, both there", ">= 5")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                from tests.bench.peers import torchrl as peer
                from tests.bench.peers.base import Setup
            except ImportError as error:
                row.why = f"not installed here ({error})"
                return row
            return self._beside(row, peer, Setup(transitions=self._effort.transitions))

    def _beside(self, row: Row, peer: Any, setup: Any) -> Row:
        clock, rounds = self._clock, self._effort.rounds
        buffer = peer.Buffer(setup, str(clock.device))
        theirs = buffer.sampler(64, 32)
        with self._table(five=True, there=True) as table:

            def ours() -> Any:
                return table.sample(64, 32)

            self._warm(ours, theirs)
            row.figures = {
                "shmtable, µs": clock.wall_us(ours, rounds),
                "TorchRL, µs": clock.wall_us(theirs, rounds),
            }
        buffer.close()
        ours_us, theirs_us = row.figures.values()
        return _judged(row, (theirs_us or 0) / (ours_us or 1), at_least=5)

    def torn(self) -> Row:
        """Windows while two processes write from the device."""
        row = Row(f"torn windows in {self._effort.seconds:g} s, two writers", "0")
        with (
            self._place.make(
                columns=content.columns(TORN_WIDTH), maxlen=2000, ejector=UniformEjectionStrategy()
            ) as table,
            Crew("spawn") as crew,
        ):
            for number in range(2):
                crew.add(_write, table, number << 24)
            crew.go()
            wrong = samples = 0
            table.sample(1, 1, timeout_s=120)
            until = time.monotonic() + self._effort.seconds
            while time.monotonic() < until:
                steps = 1 + samples % 8
                found = table.sample(64, steps, timeout_s=60)
                here = {name: column.cpu() for name, column in found.items()}
                wrong += len(content.wrong_with(here, steps))
                samples += 1
            for member in crew.members:
                member.tell("stop")
            added = sum(crew.results())
        row.figures = {"samples of 64 windows": samples, "sequences added": added}
        return _judged(row, wrong, at_most=0)

    def _warm(self, *calls: Any) -> None:
        for call in calls:
            for _ in range(min(self._effort.rounds, 20)):
                call()
        self._clock.wait()


def _write(table: ArrayMemoryTable, first: int) -> int:
    added = 0
    while not link().told():
        identity, length = first + added, 1 + (first + added * 7) % 24
        given = content.sequence(identity, length, version=added % 5, width=TORN_WIDTH)
        rows = {name: torch.as_tensor(value).to(table.device) for name, value in given.items()}
        table.add_sequence(identity, rows)
        added += 1
    return added


def _judged(
    row: Row,
    value: float,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Row:
    row.value = value
    row.reached = (
        (at_least is None or value >= at_least)
        and (at_most is None or value <= at_most)
        and (below is None or value < below)
    )
    return row
