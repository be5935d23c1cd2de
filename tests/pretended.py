"""A pretended device for what is delivered to one.

The pretended device does nothing until it must. A copy that was begun is made only when somebody
waits for an event behind it: so whoever overwrites pinned memory too early, or reads too early, is
found out by what the copies contain.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import shmtable.delivery

GARBAGE = 171


class Pretended:
    """Streams of a device that puts everything off.

    Attributes:
        log: what was asked for, in order.
        lent: tensors that a consumer's stream was said to use.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.lent: list[Tensor] = []
        self.allocated: list[int] = []
        self._begun: list[tuple[Tensor, Tensor]] = []
        self._here: list[Tensor] = []
        self._lock = threading.Lock()
        self._inside = threading.local()

    @contextlib.contextmanager
    def side(self) -> Iterator[None]:
        self._inside.side = True
        yield
        self._inside.side = False

    def is_inside(self) -> bool:
        return getattr(self._inside, "side", False)

    def pinned(self, size: int) -> Tensor:
        self.allocated.append(size)
        return torch.full((size,), GARBAGE, dtype=torch.uint8)

    def send(self, tensor: Tensor) -> Tensor:
        assert self.is_inside()
        target = torch.full_like(tensor.view(-1).view(torch.uint8), GARBAGE)
        target = target.view(tensor.dtype).view(tensor.shape)
        with self._lock:
            self.log.append("send")
            self._begun.append((tensor, target))
            self._here.append(target)
        return target

    def mark(self) -> int:
        assert self.is_inside()
        with self._lock:
            self.log.append(f"mark {len(self._here)}")
            return len(self._here)

    def _run_until(self, event: int) -> None:
        with self._lock:
            done = len(self._here) - len(self._begun)
            for source, target in self._begun[: max(event - done, 0)]:
                target.copy_(source)
            del self._begun[: max(event - done, 0)]

    def finish(self, event: int) -> None:
        self.log.append(f"finish {event}")
        self._run_until(event)

    def follow(self, event: int) -> None:
        assert not self.is_inside()
        self.log.append(f"follow {event}")
        self._run_until(event)

    def has(self, tensor: Tensor) -> bool:
        memory = tensor.untyped_storage().data_ptr()
        return any(
            tensor is one or (memory and one.untyped_storage().data_ptr() == memory)
            for one in self._here
        )

    def lend(self, tensor: Tensor) -> None:
        assert not self.is_inside()
        self.lent.append(tensor)


@pytest.fixture(name="pretended")
def pretend(monkeypatch: pytest.MonkeyPatch) -> list[Pretended]:
    """Whoever delivers takes "cuda" for a pretended device, and one for each delivery."""
    made: list[Pretended] = []

    def make(device: torch.device) -> Pretended:
        assert device.type == "cuda"
        made.append(Pretended())
        return made[-1]

    monkeypatch.setattr(shmtable.delivery, "CudaStreams", make)
    return made
