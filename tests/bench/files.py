"""What storing and restoring cost beside numpy saving and loading the same bytes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable import ArrayMemoryTable, FifoEjectionStrategy, UniformSampleStrategy
from tests.bench.cases import SEQUENCE_LENGTH, Case, columns, random_sequence
from tests.bench.measure import Timing

_CALM_S = 3.0
_LEAST_S = 1.0

Arrays = dict[str, npt.NDArray[Any]]


def file_cases(transitions: int, parent: Path) -> Iterator[Case]:
    """All cases over one full table; the files go into a folder that is removed afterwards."""
    count = transitions // SEQUENCE_LENGTH
    with _full_table(transitions, parent) as (table, sequence, folder):
        arrays = {name: np.concatenate([rows] * count) for name, rows in sequence.items()}
        size = sum(array.nbytes for array in arrays.values())
        path = f"{folder}/table"

        def store() -> None:
            table.store(path)

        yield Case("store, np.save", store, lambda: _save(arrays, folder), size, None)
        yield Case(
            "store, np.save beside the file before",
            store,
            lambda: _save(arrays, folder, beside=True),
            size,
            None,
        )
        yield Case(
            "store, np.save beside it and fsync",
            store,
            lambda: _save(arrays, folder, beside=True, safely=True),
            size,
            None,
        )
        names = list(arrays)
        arrays.clear()  # what is loaded takes their place
        yield Case(
            "restore, np.load",
            lambda: table.restore(path),
            lambda: [np.load(f"{folder}/{name}.npy") for name in names],
            size,
            None,
        )


def beside_storing(transitions: int, parent: Path, rounds: int) -> Timing:
    """What a process's adds take while another stores the table, and while nobody does.

    Returns:
        A timing whose "copy" is the add that nobody disturbs.
    """
    calm: list[float] = []
    busy: list[float] = []
    with _full_table(transitions, parent) as (table, sequence, folder):
        context = multiprocessing.get_context("spawn")
        runs, stop, times = context.Event(), context.Event(), f"{folder}/times.npy"
        writer = context.Process(target=_add_until, args=(table, runs, stop, times), daemon=True)
        writer.start()
        marks = []
        runs.wait(120)
        for _ in range(rounds):
            begin = time.perf_counter()
            time.sleep(_CALM_S)
            middle = time.perf_counter()
            table.store(f"{folder}/table")
            while time.perf_counter() < middle + _LEAST_S:  # a small table is stored at once
                table.store(f"{folder}/table")
            marks.append((begin, middle, time.perf_counter()))
        stop.set()
        writer.join()
        begun, took = np.load(times).T
    for begin, middle, end in marks:
        calm += took[(begun >= begin) & (begun < middle)].tolist()
        busy += took[(begun >= middle) & (begun < end)].tolist()
    return Timing(
        f"add_sequence of {SEQUENCE_LENGTH} steps while another process stores, while none does",
        *(np.percentile(busy, (50, 99)) * 1e6).tolist(),
        *(np.percentile(calm, (50, 99)) * 1e6).tolist(),
        moved_bytes=sum(array.nbytes for array in sequence.values()),
        aim_us=None,
    )


@contextmanager
def _full_table(
    transitions: int, parent: Path
) -> Iterator[tuple[ArrayMemoryTable, dict[str, Any], str]]:
    """A full table, the sequence that it is full of, and a folder that is removed afterwards."""
    sequence = random_sequence(np.random.default_rng(0))
    parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=parent) as folder,
        ArrayMemoryTable(
            columns=columns(),
            maxlen=transitions,
            sampler=UniformSampleStrategy(),
            ejector=FifoEjectionStrategy(),
        ) as table,
    ):
        table.add_sequences((-1 - i, sequence) for i in range(transitions // SEQUENCE_LENGTH))
        yield table, sequence, folder


def _add_until(table: ArrayMemoryTable, runs: Event, stop: Event, path: str) -> None:
    sequence = random_sequence(np.random.default_rng(1))
    times = []
    for identity in itertools.count():
        if stop.is_set():
            break
        begin = time.perf_counter()
        table.add_sequence(identity, sequence)
        times.append((begin, time.perf_counter() - begin))
        runs.set()
    np.save(path, np.array(times))


def _save(arrays: Arrays, folder: str, *, beside: bool = False, safely: bool = False) -> None:
    """One file for each array, over the one before or, as a table is stored, in its place."""
    for name, array in arrays.items():
        path = f"{folder}/{name}.npy"
        with open(f"{path}.new" if beside else path, "wb") as file:
            np.save(file, array)
            if safely:
                file.flush()
                os.fsync(file.fileno())
        if beside:
            os.replace(f"{path}.new", path)
