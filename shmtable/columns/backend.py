"""What holding columns in a device's memory takes: memory, handles of it, and order.

A device carries out copies in its own time: a call that asks for one returns before it has
happened. Two orders keep samples whole, and both are the business of :meth:`Backend.working`:

- a writer's copies are complete before its sequence is committed;
- a reader's copies are complete before it compares generations. The comparison happens on the
  CPU, so it is not enough to order the copies before later work of the device: the CPU waits.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing import reductions

from shmtable.errors import DeviceMemoryError, SpecError
from shmtable.streams import OwnStream, no_room, pinned_memory, refuse_capture

_reductions: Any = reductions  # torch gives them no types
# Of ``rebuild_cuda_tensor``, where among its arguments they are.
_STORAGE, _DEVICE, _COUNTER = 4, 6, slice(11, 13)
_SETTINGS = "PYTORCH_CUDA_ALLOC_CONF (or PYTORCH_ALLOC_CONF)"


class Handle(ABC):
    """Memory of a device on its way to another process; picklable, and meant for one process."""

    @abstractmethod
    def attach(self) -> tuple[Backend, Tensor]:
        """The memory, in a process that has not made it.

        Raises:
            DeviceMemoryError: this process cannot reach it.
        """

    @abstractmethod
    def drop(self) -> None:
        """Say that the memory is not needed: this process has it already."""


class Backend(ABC):
    """The operations that differ from device to device, none of which knows of columns.

    Attributes:
        device: whose memory it is.
        forks: whether a forked child can use what its parent has.
    """

    device: torch.device
    forks: bool

    @abstractmethod
    def allocate(self, size: int) -> Tensor:
        """New memory: uint8 [size].

        Raises:
            SharedMemoryError: the device has not so much left.
        """

    @abstractmethod
    def export(self, memory: Tensor) -> Handle:
        """A handle of memory that this process has made, for one other process."""

    @abstractmethod
    def staging(self, size: int) -> Tensor:
        """Memory of the CPU that the device copies from and to at full speed: uint8 [size]."""

    @abstractmethod
    def working(self, after_caller: bool = False) -> AbstractContextManager[list[Tensor]]:
        """A context for :meth:`copy`, :meth:`send` and so on: at its end, all of it has happened.

        Nothing in it waits for what the caller has the device do meanwhile. Tensors made in it
        and wanted later are added to the list that it yields.

        Args:
            after_caller: except this: what the caller has begun happens before.

        Raises:
            SharedMemoryError: the device has no memory left for it.
        """

    @abstractmethod
    def settle(self) -> None:
        """Wait for what this thread has begun: an interrupt may have torn it out of ``working``."""

    @abstractmethod
    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the device."""

    @abstractmethod
    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy between any two places, of which at least one is the device's."""

    @abstractmethod
    def send(self, source: Tensor) -> Tensor:
        """Copy ``staging`` memory to new memory of the device."""

    @abstractmethod
    def select(self, rows: Tensor, index: Tensor) -> Tensor:
        """Copy rows to new memory: [N, W] at int64 [B], both the device's, to [B, W].

        An index beyond N is the caller's mistake: a device may lose everything by it.
        """

    @abstractmethod
    def scatter(self, rows: Tensor, index: Tensor, values: Tensor) -> None:
        """Copy [B, ...] to rows [N, ...] at int64 [B], all the device's; no row twice."""


class CudaBackend(Backend):
    """Memory of a CUDA device, shared by CUDA's inter-process handles.

    Torch counts the handles: memory that its owner has let go stays until everybody else has, as
    long as the owner lives.

    Args:
        index: number of the device.

    Raises:
        SpecError: there is no such device.
        DeviceMemoryError: this process was forked from one that had started CUDA.
    """

    forks = False

    def __init__(self, index: int) -> None:
        self.device = torch.device("cuda", index)
        _refuse_fork(self.device)
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if index >= count:
            raise SpecError(
                f"storage_device is '{self.device}', but torch finds {count} CUDA devices here; "
                "leave storage_device out to keep the columns in shared memory",
                storage_device=str(self.device),
            )
        self._own = threading.local()

    def allocate(self, size: int) -> Tensor:
        try:
            memory = torch.empty(size, dtype=torch.uint8, device=self.device)
        except torch.cuda.OutOfMemoryError as error:
            raise no_room(self.device, f"{size} bytes", error, size) from error
        # Torch gives memory out again that work of the current stream may still be using, for
        # work of that stream only; ours is done on other ones, and in other processes.
        torch.cuda.current_stream(self.device).synchronize()
        return memory

    def export(self, memory: Tensor) -> Handle:
        try:
            _, arguments = _reductions.reduce_tensor(memory)
        except RuntimeError as error:
            raise DeviceMemoryError(
                f"{self.device}: torch cannot hand on the table's columns "
                f"({str(error).splitlines()[0]}); if {_SETTINGS} asks for "
                "expandable_segments or for another backend, leave that out",
                device=str(self.device),
            ) from error
        return CudaHandle(self.device.index, arguments, _uuid(self.device.index))

    def staging(self, size: int) -> Tensor:
        return pinned_memory(size)

    @contextmanager
    def working(self, after_caller: bool = False) -> Iterator[list[Tensor]]:
        refuse_capture(self.device)
        caller, own = torch.cuda.current_stream(self.device), self._stream()
        if after_caller:
            own.wait_stream(caller)
        results: list[Tensor] = []
        try:
            with torch.cuda.stream(own):
                try:
                    yield results
                finally:
                    own.synchronize()
        except torch.cuda.OutOfMemoryError as error:
            raise no_room(self.device, "a copy of rows", error) from error
        for result in results:
            # Made on one stream and used on another: not to be given out again before both.
            result.record_stream(caller)

    def settle(self) -> None:
        self._stream().synchronize()

    def has(self, tensor: Tensor) -> bool:
        return tensor.device == self.device

    def copy(self, target: Tensor, source: Tensor) -> None:
        target.copy_(source, non_blocking=True)

    def send(self, source: Tensor) -> Tensor:
        return source.to(self.device, non_blocking=True)

    def select(self, rows: Tensor, index: Tensor) -> Tensor:
        return torch.index_select(rows, 0, index)

    def scatter(self, rows: Tensor, index: Tensor, values: Tensor) -> None:
        if torch.are_deterministic_algorithms_enabled() and _has_neighbours(rows):
            # Torch would copy all rows away then, and back with these: what others write
            # meanwhile would be lost.
            step, width = rows.stride(0), rows.shape[1]
            index = (index[:, None] * step + torch.arange(width, device=index.device)).view(-1)
            rows = rows.as_strided(((len(rows) - 1) * step + width,), (1,))
            values = values.reshape(-1)
        rows.index_copy_(0, index, values)

    def _stream(self) -> Any:
        """A stream of this thread's own, so that threads do not wait for each other's copies."""
        own: OwnStream | None = getattr(self._own, "stream", None)
        if own is None:
            own = self._own.stream = OwnStream(self.device)
        return own.stream


class CudaHandle(Handle):
    """What torch sends instead of a CUDA tensor.

    Args:
        index: number of the device, where the memory was made. Elsewhere it may have another.
        arguments: of torch's function that makes the tensor again.
        uuid: of the device; empty where torch does not tell.
    """

    def __init__(self, index: int, arguments: tuple[Any, ...], uuid: str = "") -> None:
        self._index = index
        self._arguments = arguments
        self._uuid = uuid

    def attach(self) -> tuple[Backend, Tensor]:
        try:
            return self._attached()
        except BaseException:
            with suppress(RuntimeError):
                self.drop()  # or its owner would keep the memory for this process
            raise

    def _attached(self) -> tuple[Backend, Tensor]:
        backend = CudaBackend(self._index_here())
        arguments = list(self._arguments)
        arguments[_DEVICE] = backend.device.index
        try:
            memory: Tensor = _reductions.rebuild_cuda_tensor(*arguments)
        except RuntimeError as error:
            raise DeviceMemoryError(
                f"{backend.device}: the table's columns cannot be reached "
                f"({str(error).splitlines()[0]}); the process that made the table must be alive, "
                f"and {_SETTINGS} not ask for expandable_segments there",
                device=str(backend.device),
            ) from error
        return backend, memory

    def _index_here(self) -> int:
        """The number that the device has in this process.

        Raises:
            DeviceMemoryError: it has none.
        """
        _refuse_fork(torch.device("cuda", self._index))
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        for index in sorted(range(count), key=lambda index: index != self._index):
            if _uuid(index) == self._uuid if self._uuid else index == self._index:
                return index
        raise DeviceMemoryError(
            f"the table's columns are on cuda:{self._index} {self._uuid}".rstrip()
            + f", which is none of the {count} devices that this process sees; let "
            "CUDA_VISIBLE_DEVICES name it here too",
            device=f"cuda:{self._index}",
        )

    def drop(self) -> None:
        # As torch does where it has the memory already: else its owner would wait for this one.
        storage, device = self._arguments[_STORAGE], self._arguments[_DEVICE]
        storage._release_ipc_counter(*self._arguments[_COUNTER], device=device)


def _refuse_fork(device: torch.device) -> None:
    # It is what torch's own message depends on.
    if torch.cuda._is_in_bad_fork():
        raise DeviceMemoryError(
            f"{device}: this process was forked from one that had started CUDA, which "
            "does not work in forked processes; start it by spawn or forkserver",
            device=str(device),
        )


def _has_neighbours(rows: Tensor) -> bool:
    """Whether they are rows of a column, beside those of others."""
    return rows.ndim == 2 and rows.stride(1) == 1 and not rows.is_contiguous()


def _uuid(index: int) -> str:
    """What tells a device from all others; its number depends on what a process is shown."""
    return str(getattr(torch.cuda.get_device_properties(index), "uuid", ""))


def backend_of(device: torch.device) -> Backend:
    """What holds columns on this device.

    Raises:
        SpecError: no columns can be held there.
        DeviceMemoryError: not by this process.
    """
    if device.type != "cuda":
        raise SpecError(
            f"storage_device is '{device}'; give 'cpu', 'cuda' or 'cuda:0'",
            storage_device=str(device),
        )
    index: int | None = device.index
    if index is not None:
        return CudaBackend(index)
    usable = torch.cuda.is_available() and not torch.cuda._is_in_bad_fork()
    return CudaBackend(torch.cuda.current_device() if usable else 0)
