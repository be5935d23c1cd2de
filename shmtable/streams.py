"""What delivery to a device asks of it: a stream of its own, events, and pinned memory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

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
        return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)

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
