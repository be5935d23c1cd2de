"""How often the CPU waits for a CUDA device, as torch sees it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch


def waits(call: Callable[[], object]) -> int:
    """Calls in which torch made the CPU wait: for a stream, or for a value's sake.

    Waiting for an event is none of them.
    """
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(one.message) for one in seen)
