"""Bringing samples to another device: staged in pinned memory, copied on a stream of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from shmtable.types import SampleResult

_SLOTS = 2  # one is filled while the other is being copied
_ALIGNMENT = 64
_cuda: Any = torch.cuda  # which has no types


class Streams(Protocol):
    """What delivery asks of a device: a side stream, events on it, and pinned memory."""

    def side(self) -> AbstractContextManager[Any]:
        """Within it, this thread's work on the device goes to the side stream."""
        ...

    def pinned(self, size: int) -> Tensor:
        """uint8 [size] of memory that the device can read by itself."""
        ...

    def send(self, tensor: Tensor) -> Tensor:
        """Begin to copy a pinned tensor to the device, on this thread's stream; do not wait."""
        ...

    def mark(self) -> Any:
        """An event behind everything that the side stream has been given so far."""
        ...

    def finish(self, event: Any) -> None:
        """Wait here, on the CPU, until the device has come by an event."""
        ...

    def follow(self, event: Any) -> None:
        """Let what this thread's stream is given from now on wait for an event."""
        ...

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the device."""
        ...

    def lend(self, tensor: Tensor) -> None:
        """Say that this thread's stream uses a tensor which was made on the side stream."""
        ...


class CudaStreams:
    """A CUDA device's."""

    def __init__(self, device: torch.device) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        self._side = _cuda.Stream(self.device)

    def side(self) -> AbstractContextManager[Any]:
        """The side stream, and with it the device, made current."""
        return torch.cuda.stream(self._side)

    def pinned(self, size: int) -> Tensor:
        """Page-locked memory."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def send(self, tensor: Tensor) -> Tensor:
        """Asynchronous, as the source is page-locked."""
        return tensor.to(self.device, non_blocking=True)

    def mark(self) -> torch.cuda.Event:
        """Recorded on the side stream."""
        event: torch.cuda.Event = _cuda.Event()
        event.record(self._side)
        return event

    def finish(self, event: torch.cuda.Event) -> None:
        """The CPU waits."""
        event.synchronize()

    def follow(self, event: torch.cuda.Event) -> None:
        """The current stream waits; the CPU does not."""
        torch.cuda.current_stream(self.device).wait_event(event)

    def has(self, tensor: Tensor) -> bool:
        """On this or another CUDA device."""
        return tensor.device.type == "cuda"

    def lend(self, tensor: Tensor) -> None:
        """Keeps the side stream from getting the memory while the current stream may use it."""
        tensor.record_stream(torch.cuda.current_stream(self.device))


class Sent(NamedTuple):
    """A sample on its way."""

    batch: SampleResult
    event: Any


class Slot:
    """Pinned memory for one sample, and the event behind the last copy out of it."""

    def __init__(self) -> None:
        self.memory: Tensor | None = None
        self.event: Any = None


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
        self._ring = [Slot() for _ in range(_SLOTS)]
        self._turn = 0

    def send(self, sample: Callable[[], SampleResult]) -> Sent:
        """Draw a sample and begin to copy it.

        Args:
            sample: draws it. What it puts on the device itself is put there on the side stream.
        """
        with self._streams.side():
            batch = sample()
            slot, size = self._next_slot(), self._bytes_to_stage(batch)
            if slot.memory is None or len(slot.memory) < size:
                slot.memory = None  # before there is another: pinned memory is dear
                slot.memory = self._streams.pinned(size)
            memory, place = slot.memory, 0

            def staged(tensor: Tensor) -> Tensor:
                nonlocal place
                if self._streams.has(tensor):
                    return tensor
                pinned = memory[place : place + _bytes(tensor)]
                place += _padded(tensor)
                pinned = pinned.view(tensor.dtype).view(tensor.shape)
                return self._streams.send(pinned.copy_(tensor))

            try:
                change_tensors(batch, staged)
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
            if slot.event is not None:
                self._streams.finish(slot.event)
            slot.memory = slot.event = None

    def _next_slot(self) -> Slot:
        slot = self._ring[self._turn]
        self._turn = (self._turn + 1) % len(self._ring)
        if slot.event is not None:
            self._streams.finish(slot.event)
            slot.event = None
        return slot

    def _bytes_to_stage(self, batch: SampleResult) -> int:
        total = 0

        def add(tensor: Tensor) -> Tensor:
            nonlocal total
            if not self._streams.has(tensor):
                total += _padded(tensor)
            return tensor

        change_tensors(batch, add)
        return total


class Direct:
    """Delivery to a device without streams: at once, or not at all.

    Args:
        device: where to; None leaves samples where they are.
    """

    def __init__(self, device: torch.device | None) -> None:
        self._device = device

    def send(self, sample: Callable[[], SampleResult]) -> Sent:
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


def change_tensors(batch: SampleResult, change: Callable[[Tensor], Tensor]) -> SampleResult:
    """Put what ``change`` returns in the place of every tensor of a sample; returns the sample."""
    _changed(batch, change)
    for name in ("weights", "sources"):
        tensor = getattr(batch, name, None)
        if isinstance(tensor, Tensor):
            setattr(batch, name, change(tensor))
    return batch


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    # Adaptors may have put dictionaries and lists into a sample.
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        for key, inner in value.items():
            value[key] = _changed(inner, change)
    elif type(value) in (list, tuple):
        return type(value)(_changed(inner, change) for inner in value)
    return value


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _padded(tensor: Tensor) -> int:
    return -(-_bytes(tensor) // _ALIGNMENT) * _ALIGNMENT
