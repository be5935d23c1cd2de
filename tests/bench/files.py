"""What storing and restoring cost beside numpy saving and loading the same bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable import ArrayMemoryTable, FifoEjectionStrategy, UniformSampleStrategy
from tests.bench.cases import SEQUENCE_LENGTH, Case, columns, random_sequence

Arrays = dict[str, npt.NDArray[Any]]


def file_cases(transitions: int, parent: Path) -> Iterator[Case]:
    """All cases over one full table; the files go into a folder that is removed afterwards."""
    random = np.random.default_rng(0)
    sequence = random_sequence(random)
    count = transitions // SEQUENCE_LENGTH
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
        table.add_sequences((identity, sequence) for identity in range(count))
        arrays = {name: np.concatenate([rows] * count) for name, rows in sequence.items()}
        size = sum(array.nbytes for array in arrays.values())
        path = f"{folder}/table"

        def store() -> None:
            table.store(path)

        yield Case("store, np.save", store, lambda: _save(arrays, folder), size, None)
        yield Case(
            "store, np.save with fsync and rename",
            store,
            lambda: _save(arrays, folder, safely=True),
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


def _save(arrays: Arrays, folder: str, *, safely: bool = False) -> None:
    """One file for each array, over the one before; ``safely`` as a table is stored."""
    for name, array in arrays.items():
        path = f"{folder}/{name}.npy"
        with open(f"{path}.new" if safely else path, "wb") as file:
            np.save(file, array)
            if safely:
                file.flush()
                os.fsync(file.fileno())
        if safely:
            os.replace(f"{path}.new", path)
