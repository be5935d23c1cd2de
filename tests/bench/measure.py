"""Timing that compares like with like: the two calls of a case take turns."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch

from tests.bench.cases import Case

_WARM_UP = 100


@dataclass(frozen=True)
class Timing:
    """A case's figures, in microseconds a call."""

    name: str
    median_us: float
    p99_us: float
    copy_median_us: float
    copy_p99_us: float
    moved_bytes: int
    aim_us: float | None

    @property
    def factor(self) -> float:
        """How many plain copies the call costs."""
        return self.median_us / self.copy_median_us


def measure(case: Case, *, rounds: int, device: torch.device) -> Timing:
    """Times ``rounds`` calls of each, alternating, so that a busy moment meets both."""
    wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
    for _ in range(min(rounds, _WARM_UP)):
        case.call()
        case.copy()
    calls, copies = np.empty(rounds), np.empty(rounds)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            calls[turn] = _time_ns(case.call, wait)
            copies[turn] = _time_ns(case.copy, wait)
    finally:
        if collecting:
            gc.enable()
    return Timing(
        case.name,
        *(np.percentile(calls, (50, 99)) / 1000).tolist(),
        *(np.percentile(copies, (50, 99)) / 1000).tolist(),
        moved_bytes=case.moved_bytes,
        aim_us=case.aim_us,
    )


def _nothing() -> None: ...


def _time_ns(call: Callable[[], Any], wait: Callable[[], None]) -> int:
    wait()
    begin = perf_counter_ns()
    result = call()
    wait()
    end = perf_counter_ns()
    del result  # giving memory back is the caller's time, in both
    return end - begin
