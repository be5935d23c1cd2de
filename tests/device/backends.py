"""Stand-ins for a device: memory of the CPU behind the interface that a device's has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from shmtable.columns import Backend, Handle
from shmtable.errors import DeviceMemoryError, SharedMemoryError

ROOM = 1 << 40


class FileBackend(Backend):
    """Memory in a file without a name, which other processes open through their maker's hands.

    Args:
        room: bytes that it has; ``ROOM`` if not given.
    """

    device = torch.device("cpu")
    forks = True

    def __init__(self, room: int | None = None) -> None:
        self.room = ROOM if room is None else room
        self.handles = 0
        self._descriptors: list[int] = []

    def __del__(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def allocate(self, size: int) -> Tensor:
        self._refuse_beyond_room(size, f"{size} bytes")
        descriptor = os.memfd_create("device")
        self._descriptors.append(descriptor)
        os.ftruncate(descriptor, size)
        return mapped(f"/proc/self/fd/{descriptor}", size)

    def export(self, memory: Tensor) -> Handle:
        self.handles += 1
        return FileHandle(f"/proc/{os.getpid()}/fd/{self._descriptors[-1]}", len(memory))

    def staging(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)

    @contextmanager
    def working(self, after_caller: bool = False) -> Iterator[list[Tensor]]:
        yield []

    def settle(self) -> None:
        """Nothing is ever under way."""

    def has(self, tensor: Tensor) -> bool:
        return True  # nobody can tell its memory from the CPU's

    def copy(self, target: Tensor, source: Tensor) -> None:
        target.copy_(source)

    def send(self, source: Tensor) -> Tensor:
        return source.clone()

    def select(self, rows: Tensor, index: Tensor) -> Tensor:
        size = len(index) * rows.shape[1] * rows.element_size()
        self._refuse_beyond_room(size, "a copy of rows")
        return torch.index_select(rows, 0, index)

    def scatter(self, rows: Tensor, index: Tensor, values: Tensor) -> None:
        rows.index_copy_(0, index, values)

    def _refuse_beyond_room(self, size: int, what: str) -> None:
        if size > self.room:
            raise SharedMemoryError(
                f"the device has no room for {what}", asked_bytes=size, free_bytes=self.room - 1
            )


class FileHandle(Handle):
    """Where the file is."""

    def __init__(self, path: str, size: int) -> None:
        self.path, self.size = path, size

    def attach(self) -> tuple[Backend, Tensor]:
        try:
            return FileBackend(), mapped(self.path, self.size)
        except RuntimeError as error:
            raise DeviceMemoryError(f"{self.path} cannot be reached") from error

    def drop(self) -> None:
        """Nothing counts the handles."""


def mapped(path: str, size: int) -> Tensor:
    """The file's bytes."""
    if not size:
        return torch.empty(0, dtype=torch.uint8)
    return torch.from_file(path, shared=True, size=size, dtype=torch.uint8)


class CountingBackend(FileBackend):
    """Tells its memory from the CPU's, and counts what goes there.

    Attributes:
        sent: bytes of each transfer.
    """

    def __init__(self, room: int | None = None) -> None:
        super().__init__(room)
        self.sent: list[int] = []
        self._made: list[Tensor] = []

    def has(self, tensor: Tensor) -> bool:
        memory = tensor.untyped_storage().data_ptr()
        return any(made.untyped_storage().data_ptr() == memory for made in self._made)

    def send(self, source: Tensor) -> Tensor:
        self.sent.append(len(source))
        return self._note(super().send(source))

    def select(self, rows: Tensor, index: Tensor) -> Tensor:
        assert self.has(index)
        return self._note(super().select(rows, index))

    def scatter(self, rows: Tensor, index: Tensor, values: Tensor) -> None:
        assert self.has(index) and self.has(values)
        super().scatter(rows, index, values)

    def _note(self, tensor: Tensor) -> Tensor:
        self._made.append(tensor)
        return tensor


class LateBackend(FileBackend):
    """Carries everything out at the end of its work, and until then shows what was there before.

    What asks for a copy and does not wait for it finds garbage.

    Attributes:
        log: what has happened, in order.
    """

    forks = False

    def __init__(self, room: int | None = None) -> None:
        super().__init__(room)
        self.log: list[str] = []
        self.at_the_end: Callable[[], object] | None = None
        self._late: list[Callable[[], object]] = []

    @contextmanager
    def working(self, after_caller: bool = False) -> Iterator[list[Tensor]]:
        self.log.append("after caller" if after_caller else "begin")
        try:
            yield []
        finally:
            if self.at_the_end is not None:
                self.at_the_end()
            self.settle()

    def copy(self, target: Tensor, source: Tensor) -> None:
        self._later("copy", lambda: target.copy_(source))

    def send(self, source: Tensor) -> Tensor:
        target = torch.full_like(source, 0x55)
        self._later("send", lambda: target.copy_(source))
        return target

    def select(self, rows: Tensor, index: Tensor) -> Tensor:
        found = rows.new_full((len(index), rows.shape[1]), 0x55)
        self._later("select", lambda: found.copy_(rows[index]))
        return found

    def scatter(self, rows: Tensor, index: Tensor, values: Tensor) -> None:
        self._later("scatter", lambda: rows.index_copy_(0, index, values))

    def settle(self) -> None:
        for operation in self._late:
            operation()
        self._late.clear()
        self.log.append("complete")

    def _later(self, what: str, operation: Callable[[], object]) -> None:
        self.log.append(what)
        self._late.append(operation)
