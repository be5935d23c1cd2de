"""Where a table's columns are put by tests that run on a device and on its stand-in alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from shmtable import table as table_module
from tests.device import backends
from tests.multiprocess import content


class Place(ABC):
    """A device, or what stands in for one; picklable.

    Attributes:
        storage_device: for a table there.
        sources: devices whose tensors are added.
        effort: how many times as often as the stand-in's tests a test repeats something.
    """

    storage_device: str
    sources: Sequence[str]
    effort: int

    @abstractmethod
    def chosen(self) -> AbstractContextManager[None]:
        """Within it, tables that are made with this ``storage_device`` are there."""

    def make(self, **options: Any) -> Any:
        """A table of ``content``'s columns there, in any process."""
        with self.chosen():
            return content.make(storage_device=self.storage_device, **options)

    @abstractmethod
    def total(self) -> int:
        """Bytes of memory that it has."""

    @abstractmethod
    def used(self) -> int:
        """Bytes of it that this process holds."""

    @abstractmethod
    def streams(self) -> list[Callable[[], AbstractContextManager[Any]]]:
        """Streams for a caller to work on; each call of one makes it current."""


class Cuda(Place):
    """A CUDA device."""

    storage_device = "cuda"
    sources = ("cpu", "cuda")
    effort = 10

    def chosen(self) -> AbstractContextManager[None]:
        return nullcontext()

    def total(self) -> int:
        return torch.cuda.mem_get_info()[1]

    def used(self) -> int:
        torch.cuda.synchronize()
        torch.cuda.ipc_collect()
        return torch.cuda.memory_allocated()

    def streams(self) -> list[Callable[[], AbstractContextManager[Any]]]:
        made: Any = torch.cuda.Stream
        own = [made(), made(), torch.cuda.default_stream()]
        return [lambda stream=stream: torch.cuda.stream(stream) for stream in own]


class StandIn(Place):
    """Memory of the CPU behind a device's interface."""

    storage_device = "cpu"
    sources = ("cpu",)
    effort = 1

    @contextmanager
    def chosen(self) -> Iterator[None]:
        before = table_module.storage_backend
        table_module.storage_backend = lambda device, directory: backends.FileBackend()  # type: ignore
        try:
            yield
        finally:
            table_module.storage_backend = before

    def total(self) -> int:
        return backends.ROOM

    def used(self) -> int:
        maps = Path("/proc/self/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in maps if "memfd:device" in line]
        return sum(int(end, 16) - int(begin, 16) for begin, end in spans)

    def streams(self) -> list[Callable[[], AbstractContextManager[Any]]]:
        return [nullcontext] * 3
