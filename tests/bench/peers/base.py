"""What every peer is asked for, and the data they all get. Needs numpy only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
Call = Callable[[], Any]

_DISTINCT = 16  # different sequences that are added in turn
_DISTINCT_BATCHES = 64  # of which the priorities are updated in turn
_MOST_DISTINCT_BYTES = 16 << 20
WARM_UP = 30


class Cannot(Exception):
    """The peer has no such operation; the text says what it lacks."""


@dataclass(frozen=True)
class Layout:
    """The columns of a transition.

    Attributes:
        columns: name to the shape of a step and its dtype, "actions" among them.
        follows: whether the next observation and the end belong to a transition as well.
    """

    columns: dict[str, tuple[tuple[int, ...], str]]
    follows: bool

    def step_bytes(self) -> int:
        """Bytes of one sampled transition."""
        size = sum(
            int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in self.columns.values()
        )
        if self.follows:
            shape, dtype = self.columns["obs"]
            size += int(np.prod(shape)) * np.dtype(dtype).itemsize + 1
        return size


_FEW = {"actions": ((6,), "float32"), "rewards": ((), "float32")}
LAYOUTS = {
    "cheetah": Layout({"obs": ((17,), "float32"), **_FEW}, follows=True),
    "pixels": Layout({"obs": ((84, 84, 4), "uint8"), **_FEW}, follows=False),
    "twenty": Layout(
        {**{f"column_{i:02}": ((4,), "float32") for i in range(18)}, **_FEW}, follows=False
    ),
    "floats": Layout({"actions": ((64,), "float32")}, follows=False),
}


@dataclass(frozen=True)
class Setup:
    """A full table.

    Attributes:
        layout: one of ``LAYOUTS``.
        transitions: how many it holds, in sequences of ``steps``.
        priorities: whether it samples by priority.
        steps: transitions of a sequence.
        use: tables of the same kind that must not be one, such as that for short sequences.
        sampler, ejector: strategies of shmtable by the beginnings of their names; no peer's.
    """

    layout: str = "cheetah"
    transitions: int = 200_000
    priorities: bool = False
    steps: int = 200
    use: str = ""
    sampler: str = ""
    ejector: str = ""

    @property
    def columns(self) -> Layout:
        """The layout itself."""
        return LAYOUTS[self.layout]


@dataclass(frozen=True)
class Case:
    """One timed operation on such a table.

    Attributes:
        setup: the table.
        op: "sample", "update" (the priorities of a sample), "add", or "append" (one step, as an
            environment gives it: through a writer where there is one, else added by itself).
        count: windows to sample.
        length: transitions of a window, or of the sequence that is added.
        form: what is added: "arrays", "tensors" or "lists".
    """

    setup: Setup
    op: str
    count: int = 1
    length: int = 1
    form: str = "arrays"

    @property
    def moved_bytes(self) -> int:
        """Bytes of content the call moves."""
        return self.count * self.length * self.setup.columns.step_bytes()

    @property
    def name(self) -> str:
        """As shown."""
        if self.op == "sample":
            return f"sample({self.count}, {self.length})"
        if self.op == "update":
            return f"update {self.count} priorities"
        if self.op == "append":
            return "append 1 step"
        unit = "step" if self.length == 1 else "steps"
        return f"add {self.length} {unit}, {self.form}"


def in_turn(make: Callable[[], Any]) -> Iterator[Any]:
    """What so many calls made, for ever: as a learner's batches differ from each other."""
    return itertools.cycle([make() for _ in range(_DISTINCT_BATCHES)])


class Table(Protocol):
    """A peer's table of one setup, full; each method prepares a call that is then timed.

    All but ``close`` raise :class:`Cannot` where the peer has no such thing.
    """

    def sampler(self, count: int, length: int) -> Call:
        """Draws windows and gives all columns of them, in memory of their own."""
        ...

    def updater(self, count: int) -> Call:
        """Gives new priorities to what was sampled."""
        ...

    def adder(self, steps: int, form: str) -> Call:
        """Adds one sequence, in the place of the oldest."""
        ...

    def close(self) -> None:
        """Gives its memory back."""
        ...


@dataclass
class Shared:
    """A table that writers and this process use at once.

    Attributes:
        method: how writers are started: "fork" or "spawn".
        handle: what a writer gets.
        writer: a module's function that makes a writer's call out of the handle and its number;
            a call adds one sequence.
        sample: this process's call, ``sample(256, 1)``.
        remark: what has to be known about it.
        watch: turns on a count of the nanoseconds the lock is held and waited for in the process
            that calls it, and returns a function that reads both; None where there is none.
    """

    method: str
    handle: Any
    writer: Callable[[Any, int], Call]
    sample: Call
    remark: str = ""
    watch: Callable[[Any], Callable[[], tuple[int, int]]] | None = None


class Peer(Protocol):
    """What a module of a peer offers.

    One that fetches ahead between the calls says in ``AHEAD`` how many samples may lie ready.
    """

    def versions(self) -> dict[str, str]:
        """Of all that the figures depend on."""
        ...

    def open(self, setup: Setup) -> Table:
        """A table that is full."""
        ...

    def share(self, setup: Setup) -> Shared:
        """One that is shared, holding a few sequences."""
        ...


def sequences(setup: Setup, steps: int, seed: int = 0) -> Iterator[Arrays]:
    """Endless sequences: all but "obs" have a row per step, that one more if any follows."""
    random = np.random.default_rng(seed)
    layout = setup.columns

    def one() -> Arrays:
        arrays = {}
        for name, (shape, dtype) in layout.columns.items():
            rows = steps + (layout.follows and name == "obs")
            arrays[name] = (
                random.integers(0, 256, (rows, *shape), np.uint8)
                if dtype == "uint8"
                else random.random((rows, *shape), np.float32)
            )
        return arrays

    distinct = _MOST_DISTINCT_BYTES // (steps * layout.step_bytes())
    return itertools.cycle([one() for _ in range(min(max(distinct, 1), _DISTINCT))])


def unrolled(layout: Layout, arrays: Arrays) -> Arrays:
    """The same with "next_obs" and "dones" as columns of their own, a row per step each."""
    if not layout.follows:
        return arrays
    steps = len(arrays["actions"])
    dones = np.zeros(steps, bool)
    dones[-1] = True
    obs = arrays["obs"]
    return {
        **arrays,
        "obs": np.ascontiguousarray(obs[:-1]),
        "next_obs": np.ascontiguousarray(obs[1:]),
        "dones": dones,
    }


def call_for(table: Table, case: Case) -> Call:
    """The call of a case."""
    if case.op == "sample":
        return table.sampler(case.count, case.length)
    if case.op == "update":
        return table.updater(case.count)
    if case.op == "append":
        make: Callable[[], Call] | None = getattr(table, "appender", None)
        return make() if make else table.adder(1, "arrays")
    return table.adder(case.length, case.form)
