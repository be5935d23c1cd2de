"""What delivery asks of CUDA, and in which order; on a pretended one that only writes it down."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from shmtable import streams as module
from shmtable.delivery import Delivery, Sent
from shmtable.errors import DeviceMemoryError, SharedMemoryError
from shmtable.streams import CudaStreams
from shmtable.types import SampleResult

DEVICE = torch.device("cuda")


class Stream:
    """A stream by its name."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_event(self, event: Event) -> None:
        self.log.append(f"{self.name} after {event.behind}")


class Event:
    """An event, and behind what it is."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.behind = "nothing"

    def record(self, stream: Stream) -> None:
        self.behind = stream.name

    def synchronize(self) -> None:
        self.log.append(f"wait for {self.behind}")


class There:
    """A tensor on the device."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.device = torch.device("cuda", 1)

    def record_stream(self, stream: Stream) -> None:
        self.log.append(f"used on {stream.name}")


class Pinned:
    """A tensor of the CPU's, on its way."""

    def __init__(self, log: list[str], error: Exception | None = None) -> None:
        self.log, self.error = log, error

    def numel(self) -> int:
        return 6

    def element_size(self) -> int:
        return 4

    def to(self, device: torch.device, non_blocking: bool) -> There:
        if self.error is not None:
            raise self.error
        self.log.append(f"to {device}" + ("" if non_blocking else ", waiting"))
        return There(self.log)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two devices, the second of which is current."""
    log: list[str] = []
    numbers = iter(range(100))

    @contextmanager
    def current(stream: Stream) -> Iterator[None]:
        log.append(f"on {stream.name}")
        yield
        log.append("off")

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(log, "caller"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(log, f"side {next(numbers)}"))
    monkeypatch.setattr(torch.cuda, "Event", lambda: Event(log))
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 100))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(module, "_idle", {})
    return log


def test_the_caller_follows_the_side_stream_and_the_cpu_nobody(log: list[str]) -> None:
    streams = CudaStreams(DEVICE)
    assert streams.device == torch.device("cuda", 1)
    with streams.side():
        sent: Any = streams.send(Pinned(log))  # type: ignore[arg-type]
        event = streams.mark()
    streams.follow(event)
    assert streams.has(sent) and not streams.has(torch.zeros(1))
    streams.lend(sent)
    assert log == [
        "on side 0", "to cuda:1", "off", "caller after side 0", "used on caller"
    ]  # fmt: skip
    streams.finish(event)
    assert log[-1] == "wait for side 0"


def test_a_stream_is_used_by_one_at_a_time_and_then_again(log: list[str]) -> None:
    one, other = CudaStreams(DEVICE), CudaStreams(DEVICE)
    with one.side(), other.side():
        assert log == ["on side 0", "on side 1"]
    del one
    gc.collect()
    with CudaStreams(DEVICE).side():
        assert log[-1] == "on side 0"


def test_no_room_there_is_said_in_words(log: list[str]) -> None:
    error = torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to")
    with pytest.raises(SharedMemoryError, match="cuda:1 has no room for a sample's 24 by") as told:
        CudaStreams(DEVICE).send(Pinned(log, error))  # type: ignore[arg-type]
    assert (told.value.asked_bytes, told.value.free_bytes) == (24, 7)


def test_nothing_is_delivered_while_a_graph_is_captured(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery, drawn = Delivery(CudaStreams(DEVICE)), []
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)

    def draw() -> SampleResult:
        drawn.append(1)
        return SampleResult({})

    sent = Sent(SampleResult({}), Event(log))
    for refused in (
        lambda: delivery.send(draw),
        lambda: delivery.receive(sent),
        lambda: CudaStreams(DEVICE),
    ):
        with pytest.raises(DeviceMemoryError, match="cuda:1: a CUDA graph is being captured"):
            refused()
    assert log == [] and drawn == []
