"""What delivery to a device asks of it: a stream of its own, events, and pinned memory."""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from shmtable.errors import DeviceMemoryError, SharedMemoryError

_cuda: Any = torch.cuda  # which has no types

# By device, those that nobody uses now.
_idle: dict[torch.device, list[Any]] = {}


class OwnStream:
    """A stream of a CUDA device that nobody else here uses, as long as this object is there.

    Then somebody else gets it. Torch keeps memory for each stream by itself: with a new one for
    every thread that comes and goes, it would keep a batch or two for each of them.

    Attributes:
        stream: torch's.

    Args:
        device: with its number.
    """

    def __init__(self, device: torch.device) -> None:
        idle = _idle.setdefault(device, [])
        try:
            self.stream = idle.pop()
        except IndexError:
            self.stream = _cuda.Stream(device)
        weakref.finalize(self, idle.append, self.stream).atexit = False


def pinned_memory(size: int) -> Tensor:
    """uint8 [size] of page-locked memory, whatever torch's default device.

    Raises:
        SharedMemoryError: the system has not so much left for it.
    """
    try:
        # Torch keeps what it has pinned, and gives it out again once the copies from it are done.
        return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise SharedMemoryError(
            f"the system pins no {size} bytes more, which copies to a device go through "
            f"({str(error).splitlines()[0]}); ask for less at once",
            asked_bytes=size,
        ) from error


def no_room(device: torch.device, what: str, error: Exception, asked: int = 0) -> SharedMemoryError:
    """What to raise where a CUDA device has no memory left for something."""
    free, total = torch.cuda.mem_get_info(device)
    return SharedMemoryError(
        f"{device} has no room for {what}: {free} of its {total} bytes are free "
        f"({str(error).splitlines()[0]}); make maxlen smaller, ask for less at once, or keep "
        "the columns in shared memory (storage_device='cpu')",
        asked_bytes=asked,
        free_bytes=free,
    )


def refuse_capture(device: torch.device) -> None:
    """Raise while the current stream's work is being captured for a graph.

    Raises:
        DeviceMemoryError: it is.
    """
    if _cuda.is_current_stream_capturing():
        raise DeviceMemoryError(
            f"{device}: a CUDA graph is being captured, and what a table does cannot be part of "
            "one: the CPU waits for it; sample before, and copy the sample to the tensors that "
            "the graph works on",
            device=str(device),
        )


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
        refuse_capture(self.device)
        self._side = OwnStream(self.device)

    def side(self) -> AbstractContextManager[Any]:
        """The side stream, and with it the device, made current."""
        refuse_capture(self.device)
        return torch.cuda.stream(self._side.stream)

    def pinned(self, size: int) -> Tensor:
        """Page-locked memory."""
        return pinned_memory(size)

    def send(self, tensor: Tensor) -> Tensor:
        """Asynchronous, as the source is page-locked.

        Raises:
            SharedMemoryError: the device has no memory left for it.
        """
        try:
            return tensor.to(self.device, non_blocking=True)
        except torch.cuda.OutOfMemoryError as error:
            size = tensor.numel() * tensor.element_size()
            raise no_room(self.device, f"a sample's {size} bytes", error, size) from error

    def mark(self) -> torch.cuda.Event:
        """Recorded on the side stream."""
        event: torch.cuda.Event = _cuda.Event()
        event.record(self._side.stream)
        return event

    def finish(self, event: torch.cuda.Event) -> None:
        """The CPU waits."""
        event.synchronize()

    def follow(self, event: torch.cuda.Event) -> None:
        """The current stream waits; the CPU does not."""
        refuse_capture(self.device)
        torch.cuda.current_stream(self.device).wait_event(event)

    def has(self, tensor: Tensor) -> bool:
        """On this or another CUDA device."""
        return tensor.device.type == "cuda"

    def lend(self, tensor: Tensor) -> None:
        """Keeps the side stream from getting the memory while the current stream may use it."""
        tensor.record_stream(torch.cuda.current_stream(self.device))
