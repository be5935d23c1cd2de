"""Bringing samples to another device: from pinned memory, by copies on a stream of their own."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shmtable.columns import CpuStorage
from shmtable.pinned import Slot, change_tensors
from shmtable.shm import process
from shmtable.streams import CudaStreams, Streams
from shmtable.types import SampleResult

_SLOTS = 2  # one is filled while the other is being copied


class Sent(NamedTuple):
    """A sample on its way."""

    batch: SampleResult
    event: Any


class Delivery:
    """Sends samples from one thread, and hands them to the stream of another one.

    The thread that sends fills one slot of a ring of pinned buffers, has the device copy it on the
    side stream, and goes on; before a slot is filled again, its last copy is waited for. Whoever
    receives does not wait: their stream does.

    Args:
        streams: of the device.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._ring = [Slot(streams) for _ in range(_SLOTS)]
        self._turn = 0

    def send(self, sample: Callable[[], SampleResult], storage: CpuStorage | None = None) -> Sent:
        """Draw a sample and begin to copy it.

        Args:
            sample: draws it. What it puts on the device itself is put there on the side stream.
            storage: that this thread gathers the sample from, where nobody else keeps what is
                gathered: its large columns are gathered to pinned memory at once.
        """
        with self._streams.side():
            slot = self._ring[self._turn]
            self._turn = (self._turn + 1) % len(self._ring)
            slot.wait()
            with storage.gathering_into(slot.take) if storage else contextlib.nullcontext():
                batch = sample()
            try:
                slot.send(batch)
            finally:  # an error after some copies have begun leaves them reading from the slot
                slot.event = self._streams.mark()
            return Sent(batch, slot.event)

    def receive(self, sent: Sent) -> SampleResult:
        """The sample, for use on this thread's current stream."""
        self._streams.follow(sent.event)

        def lent(tensor: Tensor) -> Tensor:
            if self._streams.has(tensor):
                self._streams.lend(tensor)
            return tensor

        return change_tensors(sent.batch, lent)

    def close(self) -> None:
        """Wait for the copies under way, and let the pinned memory go."""
        for slot in self._ring:
            slot.wait()
            slot.memory = None


class Direct:
    """Delivery to a device without streams: at once, or not at all.

    Args:
        device: where to; None leaves samples where they are.
    """

    def __init__(self, device: torch.device | None) -> None:
        self._device = device

    def send(self, sample: Callable[[], SampleResult], storage: CpuStorage | None = None) -> Sent:
        """Draw a sample and move it."""
        batch, device = sample(), self._device
        if device is not None:
            change_tensors(batch, lambda tensor: tensor.to(device))
        return Sent(batch, None)

    def receive(self, sent: Sent) -> SampleResult:
        """The sample."""
        return sent.batch

    def close(self) -> None:
        """Nothing to wait for."""


@contextlib.contextmanager
def delivery_to(device: torch.device | None) -> Iterator[Delivery | Direct]:
    """The right delivery to a device, closed at the end; None leaves samples where they are."""
    delivery: Delivery | Direct
    if device is not None and device.type == "cuda":
        delivery = Delivery(CudaStreams(device))
    else:
        delivery = Direct(device)
    try:
        yield delivery
    finally:
        delivery.close()


# Of a parent process, in its forked child: nothing of it may be dropped there, as that would be a
# call of CUDA, which does not work in a forked process.
_of_parents: list[Delivery] = []


class Deliveries:
    """Delivery of a table's samples on a device, to whichever thread draws them.

    Args:
        device: a CUDA one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own = threading.local()
        # By thread: what a thread has of its own, a forked child drops, if it is not the thread
        # that forked.
        self._made: weakref.WeakValueDictionary[int, Delivery] = weakref.WeakValueDictionary()
        self._kept: list[Delivery | None] = []
        process.around_fork(self._keep, self._let_go)
        process.after_fork(self._begin_anew)

    def deliver(self, sample: Callable[[], SampleResult], storage: CpuStorage) -> SampleResult:
        """Draw a sample and begin to copy it; this thread's stream waits for that, not the CPU.

        Args:
            sample: draws it.
            storage: that it is gathered from.
        """
        delivery: Delivery | None = getattr(self._own, "delivery", None)
        if delivery is None:
            delivery = self._own.delivery = Delivery(CudaStreams(self._device))
            self._made[threading.get_ident()] = delivery
        return delivery.receive(delivery.send(sample, storage))

    def close(self) -> None:
        """Let the pinned memory go; copies that are under way keep what they read from."""
        self._own = threading.local()

    def _keep(self) -> None:
        self._kept = [made() for made in self._made.valuerefs()]

    def _let_go(self) -> None:
        self._kept = []

    def _begin_anew(self) -> None:
        _of_parents.extend(delivery for delivery in self._kept if delivery is not None)
        self._own, self._kept = threading.local(), []
