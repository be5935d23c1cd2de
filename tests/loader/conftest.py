"""No test leaves a thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


def prefetchers() -> list[threading.Thread]:
    """The threads that make batches ahead."""
    return [thread for thread in threading.enumerate() if thread.name == "shmtable-prefetch"]


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    assert prefetchers() == []
