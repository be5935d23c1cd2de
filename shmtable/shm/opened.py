"""Descriptors that no interrupt can lose between their opening and whoever is to close them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any


class Opened:
    """One descriptor: closed by ``close``, at the end of a ``with`` block, or with this object.

    Args:
        function: opens it; one that is written in C, as ``os.open`` is.
        *args: its arguments.

    Raises:
        OSError: what ``function`` raises.
    """

    def __init__(self, function: Callable[..., int], *args: Any) -> None:
        self._numbers: list[int] = []
        # From the call to the list in one go: an interrupt comes before it, or finds it there.
        self._numbers.extend(map(function, *([argument] for argument in args)))

    @property
    def fd(self) -> int:
        """The descriptor, as the system numbers it; -1 once it is closed."""
        return self._numbers[0] if self._numbers else -1

    def close(self) -> None:
        """Close it; safe to call twice."""
        taken = [self._numbers] * len(self._numbers)
        deque(map(_close, map(_pop, taken)), 0)  # in one go again

    __del__ = close

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


_close, _pop = os.close, list.pop
