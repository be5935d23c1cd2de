"""Descriptors that no interrupt can lose between their opening and whoever is to close them."""

from __future__ import annotations

import select
from collections.abc import Callable
from io import FileIO
from typing import Any

# An object of C that has a descriptor and closes it as it goes, whatever kind of file that is. The
# system's own ways of waiting for many files make no more of it, and say nothing; a file object,
# where there are none, warns that nobody has closed it.
_WAITER: Any = getattr(select, "epoll", None) or getattr(select, "kqueue", None)
_OWNED: Callable[[int], Any] = FileIO if _WAITER is None else _WAITER.fromfd


class Opened:
    """One descriptor: closed by ``close``, at the end of a ``with`` block, or with this object.

    It has no finaliser of its own: an interrupt that came in there would be dropped.

    Args:
        function: opens it, no directory; one that is written in C, as ``os.open`` is.
        *args: its arguments.

    Raises:
        OSError: what ``function`` raises.
    """

    def __init__(self, function: Callable[..., int], *args: Any) -> None:
        # From the call to its owner in one go: an interrupt comes before it, or finds the owner.
        numbers = map(function, *([argument] for argument in args))
        self._file = next(map(_OWNED, numbers))

    @property
    def fd(self) -> int:
        """The descriptor, as the system numbers it; -1 once it is closed."""
        return -1 if self._file.closed else self._file.fileno()

    def close(self) -> None:
        """Close it; safe to call twice."""
        self._file.close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
