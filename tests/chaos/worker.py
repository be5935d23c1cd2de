"""A process that uses two tables without pause, until it is told to stop or killed.

In the *vault* nothing is ever ejected: a worker adds sequences with identities of its own, in
ascending order, and removes them again in the same order, always keeping some. How far it got
stands in its record, so that whoever finds it dead knows what must be there and what must not.
The *churn* is a small table in which everybody replaces, removes and ejects everybody's
sequences.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shmtable import (
    ArrayMemoryTable,
    EmptyTableError,
    NoWindowError,
    UniformEjectionStrategy,
    UnknownIdentityError,
)
from tests.chaos.meter import Meter, Records, Word
from tests.multiprocess import content
from tests.multiprocess.recipe import link

THREADS = 3  # of every third worker
KEPT = 8  # sequences of its own that a worker leaves in the vault
MOST_STEPS = 24
BLOCK = 1 << 16  # identities that one worker may use in the vault
STOCK = 30  # sequences that a worker has ready for the churn
CHURNED = 40  # identities in the churn
LONG_S = 30.0
WIDTH = 16


@dataclass(frozen=True)
class Tables:
    """The two tables of a storm."""

    vault: ArrayMemoryTable
    churn: ArrayMemoryTable

    @classmethod
    def make(cls, lock: str, workers: int, seed: int) -> Tables:
        """Room for all in the vault; too little in the churn."""
        vault = content.make(WIDTH, maxlen=20_000 + 2000 * workers, lock=lock, seed=seed)
        churn = content.make(
            WIDTH,
            maxlen=300,
            ejector=UniformEjectionStrategy(),
            on_duplicate="replace",
            lock=lock,
            seed=seed,
        )
        return cls(vault, churn)

    def close(self) -> None:
        """Let go of both."""
        self.vault.close()
        self.churn.close()


def length_of(identity: int) -> int:
    """Transitions of a vault sequence."""
    return 1 + identity * 7 % MOST_STEPS


class Worker:
    """Calls on both tables, measured, and checked as far as one process can tell.

    Args:
        tables: what to work on.
        meter: measures every call.
        base: the first of this worker's identities in the vault.
        random: what to do next.
    """

    def __init__(
        self, tables: Tables, meter: Meter, base: int, random: np.random.Generator
    ) -> None:
        self._tables = tables
        self._meter = meter
        self._record = meter.record
        self._base = base
        self._random = random
        # Made once: a worker should spend its time in the tables.
        self._stock = [self._make_for_churn() for _ in range(STOCK)]

    def keep(self) -> None:
        """Add one sequence to the vault, and remove the oldest when there are enough."""
        vault, record = self._tables.vault, self._record
        identity = self._base + record[Word.STARTED]
        sequence = content.sequence(identity, length_of(identity), width=WIDTH)
        record[Word.STARTED] += 1
        self._meter.call("add", vault.add_sequence, identity, sequence, timeout_s=LONG_S)
        record[Word.ADDED] += 1
        if record[Word.ADDED] - record[Word.REMOVED] > KEPT:
            self.drop(self._base + record[Word.REMOVED])

    def drop(self, identity: int) -> None:
        """Remove this worker's oldest sequence from the vault; it must be there, and whole."""
        vault, record = self._tables.vault, self._record
        self.find(identity)
        record[Word.REMOVING] += 1
        self._meter.call("remove", vault.remove, identity)
        record[Word.REMOVED] += 1

    def find(self, identity: int) -> None:
        """Read one sequence of the vault."""
        found = self._meter.call("sequence", self._tables.vault.sequence, identity)
        wrong = content.wrong_with_sequence(found, identity)
        assert not wrong, wrong
        assert found["who"][2] == length_of(identity)

    def watch(self) -> None:
        """Sample from both tables."""
        steps = int(self._random.integers(1, 7))
        for table in (self._tables.vault, self._tables.churn):
            try:
                sample = self._meter.call("sample", table.sample, 16, steps)
            except (EmptyTableError, NoWindowError):
                continue
            wrong = content.wrong_with(sample, steps)
            assert not wrong, wrong
            self._record[Word.WINDOWS] += 16

    def disturb(self) -> None:
        """Replace something in the churn; now and then something worse."""
        churn, random = self._tables.churn, self._random
        luck = random.random()
        identity, sequence = self._stock[int(random.integers(STOCK))]
        if luck < 0.8:
            self._meter.call("replace", churn.add_sequence, identity, sequence, timeout_s=LONG_S)
        elif luck < 0.85:
            several = dict(self._stock[:4])
            self._meter.call("replace", churn.add_sequences, several.items(), timeout_s=LONG_S)
        elif luck < 0.95:
            try:
                self._meter.call("remove", churn.remove, identity)
            except UnknownIdentityError:
                pass
        elif luck < 0.97:
            self._meter.call("clear", churn.clear)
        else:
            found = self._meter.call("identities", churn.identities).tolist()
            assert len(set(found)) == len(found), f"doubled: {found}"
            try:
                copy = self._meter.call("sequence", churn.sequence, identity)
            except UnknownIdentityError:
                return
            wrong = content.wrong_with_sequence(copy, identity)
            assert not wrong, wrong

    def _make_for_churn(self) -> tuple[int, Mapping[str, Any]]:
        random = self._random
        identity, version = int(random.integers(CHURNED)), int(random.integers(content.VERSIONS))
        length = int(random.integers(1, 41))
        return identity, content.sequence(identity, length, version=version, width=WIDTH)


def work(tables: Tables, records: Records, number: int, base: int, seed: int) -> None:
    """What a member of the crew does: mostly writing, or mostly reading; every third has threads.

    Its record is ``THREADS * number``, the ones behind it are its other threads'.
    """
    torch.set_num_threads(1)
    stop, errors = threading.Event(), []  # type: ignore[var-annotated]

    def help_out(thread: int) -> None:
        meter = Meter(records.words[THREADS * number + thread])
        worker = Worker(tables, meter, base, np.random.default_rng([seed, base, thread]))
        try:
            while not stop.is_set():
                worker.watch()
                worker.disturb()
        except BaseException as error:
            errors.append(error)

    helpers = range(1, THREADS if number % 3 == 1 else 1)
    threads = [threading.Thread(target=help_out, args=(n,), daemon=True) for n in helpers]
    for thread in threads:
        thread.start()
    meter = Meter(records.words[THREADS * number])
    random = np.random.default_rng([seed, base])
    worker = Worker(tables, meter, base, random)
    reads = 0.8 if number % 3 == 2 else 0.2
    while not link().told():
        for choice in random.random(20):
            if choice < reads:
                worker.watch()
            elif choice < (1 + reads) / 2:
                for _ in range(5):
                    worker.disturb()
            elif meter.record[Word.STARTED] < BLOCK:
                worker.keep()
        if errors:
            raise errors[0]
    stop.set()
    for thread in threads:
        thread.join(LONG_S)
    if errors:
        raise errors[0]
