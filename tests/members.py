"""Crew members for tests; spawned processes find them by their name."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from typing import Any


def greet(index: int, line: Connection[Any, None], word: str) -> None:
    """Says something, then waits to be let go."""
    line.send((index, word, os.getpid()))
    line.poll(None)


def fail(index: int, line: Connection[Any, None]) -> None:
    """Member 0 ends by itself; the others stay."""
    if index == 0:
        raise SystemExit(3)
    line.poll(None)


def stay(index: int, line: Connection[Any, None], forgiving: bool) -> None:
    """Hears neither the end of the line nor, unless forgiving, a polite signal."""
    if not forgiving:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    line.send(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    while True:
        signal.pause()
