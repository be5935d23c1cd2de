"""A table as a dataset for torch's data loader."""

from __future__ import annotations

import copy
import multiprocessing.util
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from shmtable.errors import SpecError
from shmtable.protocols.arguments import as_int64, at_least_one
from shmtable.table import ArrayMemoryTable
from shmtable.types import SampleResult

_MOST_WORKERS = 1024


class MemoryDataset(IterableDataset[SampleResult]):
    """Epochs of samples, drawn by the worker processes of a ``torch.utils.data.DataLoader``.

    Every item is a whole batch, so the data loader must not make batches of them::

        dataset = MemoryDataset(table, 32, 8, batches=1_000, timeout_s=60)
        loader = DataLoader(dataset, batch_size=None, num_workers=2)

    Each worker attaches to the table by itself, draws its share of the batches from a random
    stream of its own, and lets the table go as it ends. ``points`` come with the samples, for
    ``table.update_priorities`` in the learner.

    Args:
        memory_table: what to sample. The process that has it must keep it open while workers
            start.
        rollout_count: windows per batch, at least 1.
        rollout_length: transitions per window, at least 1.
        batches: per epoch, over all workers.
        timeout_s: how long each sample waits for something to sample; 0 not at all, None for
            ever.
        seed: make the draws depend on it, the worker's number and the epoch's alone (epochs are
            counted over all data loaders of this dataset). The same seed, number of workers and
            content give the same batches. None: never the same.

    Raises:
        SpecError: an argument that cannot be.
    """

    def __init__(
        self,
        memory_table: ArrayMemoryTable,
        rollout_count: int,
        rollout_length: int,
        batches: int,
        *,
        timeout_s: float | None = 0.0,
        seed: int | None = None,
    ) -> None:
        if not isinstance(memory_table, ArrayMemoryTable):
            raise SpecError(
                f"memory_table is a {type(memory_table).__name__}; give an ArrayMemoryTable, "
                "which workers can attach to"
            )
        self.memory_table = memory_table
        self.rollout_count = at_least_one("rollout_count", rollout_count)
        self.rollout_length = at_least_one("rollout_length", rollout_length)
        self.batches = at_least_one("batches", batches)
        self.timeout_s = timeout_s
        self.seed = None if seed is None else as_int64("seed", seed)
        if self.seed is not None and self.seed < 0:
            raise SpecError(f"seed is {seed}; give 0 or more")
        self._worker_pid: int | None = None
        # How many epochs each worker has begun: shared with the workers, as they may live for one
        # epoch or for many, and nobody tells them which one it is.
        self._epochs: Any = None
        if self.seed is not None:
            self._epochs = torch.zeros(_MOST_WORKERS, dtype=torch.int64, device="cpu")
            self._epochs.share_memory_()

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[SampleResult]:
        worker = get_worker_info()
        if worker is None:
            # A hold of its own, so that nobody else's random stream changes.
            with copy.copy(self.memory_table) as table:
                yield from self._epoch(table, 0, 1)
            return
        if self._worker_pid != os.getpid():
            self._worker_pid = os.getpid()
            # Workers leave without running atexit.
            multiprocessing.util.Finalize(None, self.memory_table.close, exitpriority=10)
        yield from self._epoch(self.memory_table, worker.id, worker.num_workers)

    def _epoch(self, table: ArrayMemoryTable, worker: int, workers: int) -> Iterator[SampleResult]:
        """A worker's share of the next epoch."""
        if self.seed is not None:
            table.reseed([self.seed, worker, self._next_epoch(worker)])
        for _ in range(self.batches // workers + (worker < self.batches % workers)):
            yield table.sample(self.rollout_count, self.rollout_length, timeout_s=self.timeout_s)

    def _next_epoch(self, worker: int) -> int:
        if self._epochs is None or worker >= _MOST_WORKERS:
            raise SpecError(
                f"worker {worker} is beyond the {_MOST_WORKERS} that a seeded dataset counts the "
                "epochs of; use fewer workers, or no seed"
            )
        epoch = int(self._epochs[worker])
        self._epochs[worker] = epoch + 1
        return epoch
