"""Time on a CUDA device, and on the CPU that stands in for one when the measuring is tried out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter_ns
from typing import Any

import torch
from torch import Tensor


class Clock(ABC):
    """What is measured with.

    Attributes:
        device: of which the time is.
    """

    device: torch.device

    @abstractmethod
    def wait(self) -> None:
        """Until the device has nothing left to do."""

    @abstractmethod
    def mark(self) -> Any:
        """A moment on the current stream."""

    @abstractmethod
    def between_us(self, begin: Any, end: Any) -> float:
        """From one moment to a later one, both of which have come."""

    @abstractmethod
    def busy(self, us: float) -> None:
        """Have the current stream do something for so long."""

    @abstractmethod
    def pinned(self, size: int) -> Tensor:
        """uint8 [size] of memory that the device copies from at full speed."""

    @abstractmethod
    def kernels_us(self, call: Callable[[], Any], rounds: int) -> float | None:
        """What the device is at work in a call, gaps left out; None where nobody can tell."""

    def wall_us(self, call: Callable[[], Any], rounds: int) -> float:
        """Median of calls by themselves, until the device is done."""
        found = []
        for _ in range(rounds):
            self.wait()
            begin = perf_counter_ns()
            result = call()
            self.wait()
            found.append((perf_counter_ns() - begin) / 1000)
            del result
        return median(found)

    def device_us(self, call: Callable[[], Any], rounds: int) -> float:
        """Median time of what a call gives the current stream to do."""
        found = []
        for _ in range(rounds):
            self.wait()
            begin = self.mark()
            call()
            end = self.mark()
            self.wait()
            found.append(self.between_us(begin, end))
        return median(found)

    def working_us(self, backend: Any, call: Callable[[], Any], rounds: int) -> float:
        """Median time from the first to the last thing that a table has its stream do in a call.

        Args:
            backend: of the table's columns.
            call: with one thing to wait for.
            rounds: how many calls.
        """
        original, found, moments = backend.working, [], []

        @contextmanager
        def working(after_caller: bool = False) -> Iterator[list[Tensor]]:
            with original(after_caller) as results:
                begin = self.mark()
                yield results
                moments.append((begin, self.mark()))

        backend.working = working
        try:
            for _ in range(rounds):
                call()
                self.wait()
                found.append(sum(self.between_us(*pair) for pair in moments))
                moments.clear()
        finally:
            del backend.working
        return median(found)


class CudaClock(Clock):
    """By events of the device."""

    def __init__(self, device: torch.device) -> None:
        if device.index is not None:
            torch.cuda.set_device(device)
        self.device = torch.device("cuda", torch.cuda.current_device())
        torch.cuda._sleep(1000)
        cycles = 20_000_000
        self._cycles_per_us = cycles / self.device_us(lambda: torch.cuda._sleep(cycles), 5)

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)

    def mark(self) -> Any:
        event: Any = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between_us(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end)) * 1000

    def busy(self, us: float) -> None:
        torch.cuda._sleep(int(us * self._cycles_per_us))

    def pinned(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def kernels_us(self, call: Callable[[], Any], rounds: int) -> float | None:
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile

        try:
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                for _ in range(rounds):
                    call()
                self.wait()
        except RuntimeError:  # not every machine lets it look
            return None
        # Calls of the CPU may be listed too, with the time of what they have begun.
        total = sum(
            getattr(entry, "self_device_time_total", 0.0)
            for entry in seen.key_averages()
            if entry.device_type != DeviceType.CPU
        )
        return total / rounds if total else None


class CpuClock(Clock):
    """By the clock on the wall."""

    device = torch.device("cpu")

    def wait(self) -> None:
        """Nothing is under way."""

    def mark(self) -> Any:
        return perf_counter_ns()

    def between_us(self, begin: Any, end: Any) -> float:
        return float(end - begin) / 1000

    def busy(self, us: float) -> None:
        time.sleep(us / 1e6)

    def pinned(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def kernels_us(self, call: Callable[[], Any], rounds: int) -> float | None:
        return None
