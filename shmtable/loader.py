"""Batches for a training loop: one after the other, in epochs, made ahead, on the right device."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import torch

from shmtable.columns import CpuStorage
from shmtable.delivery import delivery_to
from shmtable.errors import SpecError, WaitTimeoutError
from shmtable.held import HeldTable
from shmtable.interface import MemoryTable
from shmtable.prefetch import Prefetch
from shmtable.protocols.arguments import as_device, as_int64, at_least_one
from shmtable.protocols.read import died
from shmtable.types import SampleResult

_LOOK_EVERY_S = 0.05


class MemoryLoader:
    """Samples a table again and again, for a training loop to iterate over.

    Each batch is a dictionary of two: under ``data_group`` the sample, under ``size_key`` the
    number of its transitions, ``rollout_count * rollout_length``, which the sample has under
    ``size_key`` as well. Every iteration begins anew; several at a time are independent.

    With ``prefetch``, a thread samples ahead while the loop learns. A batch made ahead has been
    sampled, as far as limiters, queues, counts and priorities are concerned, also when nobody
    takes it any more. Its ``points`` stay good for ``update_priorities`` as long as the sequences
    are in the table. The thread ends when the loop does, also by ``break`` or an error, and its
    errors are raised in the loop.

    Args:
        memory_table: what to sample.
        rollout_count: windows per batch, at least 1.
        rollout_length: transitions per window, at least 1.
        size_key: where a batch says its size; no column's name.
        data_group: where it has the sample.
        batches: per iteration: an epoch; None for no end.
        prefetch: so many batches are made ahead at most; 0 makes each when it is asked for.
        timeout_s: how long an iteration waits for the table to be ready, and then for each
            sample; 0 not at all, None for ever.
        device: where batches are delivered; None where the table delivers. Adaptors run before.
            To "cuda" they are copied from pinned memory on a stream of their own, which the
            current stream of whoever takes a batch waits for.

    Raises:
        SpecError: an argument that cannot be.
    """

    def __init__(
        self,
        memory_table: MemoryTable,
        rollout_count: int,
        rollout_length: int,
        size_key: str,
        data_group: str = "default",
        *,
        batches: int | None = None,
        prefetch: int = 0,
        timeout_s: float | None = 0.0,
        device: torch.device | str | None = None,
    ) -> None:
        self.memory_table = memory_table
        self.rollout_count = at_least_one("rollout_count", rollout_count)
        self.rollout_length = at_least_one("rollout_length", rollout_length)
        self.size_key = size_key
        self.data_group = data_group
        self.batches = None if batches is None else at_least_one("batches", batches)
        self.prefetch = as_int64("prefetch", prefetch)
        self.timeout_s = timeout_s
        if device is None:
            device = getattr(memory_table, "device", None)
            device = None if device is None or device.type == "cpu" else device
        self._device = None if device is None else as_device(device)
        if self.prefetch < 0:
            raise SpecError(f"prefetch is {prefetch}; give 0 or more")
        if size_key == data_group:
            raise SpecError(f"size_key and data_group are both {size_key!r}; give two names")
        if any(column.name == size_key for column in getattr(memory_table, "columns", ())):
            raise SpecError(f"size_key is {size_key!r}, a column's name; give another one")

    @property
    def size(self) -> int:
        """Transitions per batch."""
        return self.rollout_count * self.rollout_length

    def is_ready(self) -> bool:
        """Whether the table has enough to begin with: as many transitions as a batch.

        Where the table can tell, also whether it would give such a sample now; of a table with a
        limiter, that alone counts.
        """
        return not self._lack()

    def wait_until_ready(self, timeout_s: float | None = 60.0) -> None:
        """Wait until there is enough to begin with.

        Args:
            timeout_s: how long; None for ever.

        Raises:
            WaitTimeoutError: there is not enough in time, or nobody is left who could add. Its
                fields ``transitions`` and ``needed`` say how many there are, and how many have
                to be.
        """
        began = time.monotonic()
        while lack := self._lack():
            left = None if timeout_s is None else began + timeout_s - time.monotonic()
            core = self.memory_table._core if isinstance(self.memory_table, HeldTable) else None
            gone = died(core) if core and (left is None or left > 0) else ""
            if gone or (left is not None and left <= 0):
                waited = f"waited {timeout_s:g} s: " if timeout_s and not gone else ""
                company = core.company() if core else "add more, or wait longer"
                raise WaitTimeoutError(
                    f"{waited}{lack}; {gone or company}",
                    transitions=self.memory_table.size(),
                    needed=self.size,
                    timeout_s=timeout_s,
                )
            time.sleep(_LOOK_EVERY_S if left is None else min(left, _LOOK_EVERY_S))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.wait_until_ready(self.timeout_s)
        with ExitStack() as stack:
            delivery = stack.enter_context(delivery_to(self._device))

            storage = self._storage()

            def send() -> Any:
                return delivery.send(self._sample, storage)

            if self.prefetch:
                ahead = Prefetch(send, self.prefetch, self.batches)
                sent: Iterator[Any] = stack.enter_context(closing(ahead))
            else:
                sent = (send() for _ in _count_to(self.batches))
            for one in sent:
                batch = delivery.receive(one)
                del one  # or the loop would keep the batch beyond its own use of it
                batch[self.size_key] = self.size
                yield {self.data_group: batch, self.size_key: self.size}
                del batch

    def _storage(self) -> CpuStorage | None:
        """What batches are gathered from, if none but the loader ever has what is gathered."""
        table = self.memory_table
        if not isinstance(table, HeldTable) or table.adaptors or table.device.type != "cpu":
            return None
        storage = table._core.storage
        return storage if isinstance(storage, CpuStorage) else None

    def _sample(self) -> SampleResult:
        table: Any = self.memory_table
        # Tables that are not shmtable's own know nothing of waiting.
        wait = {} if self.timeout_s == 0 else {"timeout_s": self.timeout_s}
        sample: SampleResult = table.sample(self.rollout_count, self.rollout_length, **wait)
        return sample

    def _lack(self) -> str:
        """What keeps the table from being ready; empty when it is."""
        table: Any = self.memory_table
        windows = f"{self.rollout_count} windows of {self.rollout_length}"
        if getattr(table, "limiter", None) is None and (size := table.size()) < self.size:
            return f"the table holds {size} transitions, and a batch takes {self.size} ({windows})"
        can_sample = getattr(table, "can_sample", None)
        if can_sample is None or can_sample(self.rollout_count, self.rollout_length):
            return ""
        return (
            f"the table holds {table.size()} transitions, and gives no sample of {self.size} now "
            f"({windows}): its limiter holds them back, or its sequences are too short"
        )


class JointMemoryLoader:
    """Several loaders as one: each batch has the groups of all of them.

    Args:
        loaders: each with a ``data_group`` of its own.
        size_key: where a batch says its size, the sum of the loaders' sizes.

    Raises:
        SpecError: no loader, or two with the same ``data_group``.
    """

    def __init__(self, loaders: Sequence[MemoryLoader], size_key: str = "batch_size") -> None:
        self.loaders = list(loaders)
        self.size_key = size_key
        groups = [loader.data_group for loader in self.loaders]
        if not groups:
            raise SpecError("loaders is empty; give at least one")
        if len({*groups, size_key}) <= len(groups):
            raise SpecError(
                f"the loaders' data groups are {', '.join(map(repr, groups))}, size_key is "
                f"{size_key!r}; give each a name of its own"
            )

    def is_ready(self) -> bool:
        """Whether all the loaders are."""
        return all(loader.is_ready() for loader in self.loaders)

    def wait_until_ready(self, timeout_s: float | None = 60.0) -> None:
        """Wait until all the loaders are ready.

        Args:
            timeout_s: how long in all; None for ever.

        Raises:
            WaitTimeoutError: as for :class:`MemoryLoader`.
        """
        began = time.monotonic()
        for loader in self.loaders:
            left = None if timeout_s is None else max(began + timeout_s - time.monotonic(), 0.0)
            loader.wait_until_ready(left)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # Ends with the loader that ends first; all threads end with the iteration.
        for loader in self.loaders:  # all of them, before any has sampled
            loader.wait_until_ready(loader.timeout_s)
        with ExitStack() as stack:
            parts: list[Any] = [iter(loader) for loader in self.loaders]
            for part in parts:
                stack.enter_context(closing(part))
            while True:
                joint: dict[str, Any] = {}
                size = 0
                for loader, part in zip(self.loaders, parts, strict=True):
                    batch = next(part, None)
                    if batch is None:
                        return
                    size += batch[loader.size_key]
                    joint.update(batch)
                joint[self.size_key] = size
                yield joint
                del joint, batch  # before the next are made


class JointMemoryLoaderWithDataGroup(JointMemoryLoader):
    """A joint loader whose batches have everything under one name.

    Each batch has the joint batch under ``data_group``, and its size once more beside it.

    Args:
        loaders: as for :class:`JointMemoryLoader`.
        data_group: where a batch has the joint one.
        size_key: where both say their size.

    Raises:
        SpecError: as for :class:`JointMemoryLoader`.
    """

    def __init__(
        self, loaders: Sequence[MemoryLoader], data_group: str, size_key: str = "batch_size"
    ) -> None:
        super().__init__(loaders, size_key)
        self.data_group = data_group
        if data_group == size_key:
            raise SpecError(f"size_key and data_group are both {size_key!r}; give two names")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        joint: Any = super().__iter__()
        with closing(joint):
            for batch in joint:
                yield {self.data_group: batch, self.size_key: batch[self.size_key]}
                del batch


def _count_to(count: int | None) -> Iterator[int]:
    number = 0
    while count is None or number < count:
        yield number
        number += 1
