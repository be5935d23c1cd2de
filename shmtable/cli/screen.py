"""A page of text that is replaced again and again, on a terminal; elsewhere one after the other."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Screen:
    """Shows pages, within a ``with`` block; with the package ``rich`` without flicker."""

    def __init__(self) -> None:
        self._live: Any = None
        self._first = True
        if sys.stdout.isatty():
            try:
                from rich.live import Live
            except ImportError:
                return
            self._live = Live(auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, page: str) -> None:
        """Show a page in the place of the one before."""
        if self._live is not None:
            from rich.text import Text

            # Long lines are cut: wrapped ones would make the table unreadable.
            self._live.update(Text(page, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif sys.stdout.isatty():
            print(f"\x1b[H\x1b[2J{page}", flush=True)
        else:
            print(page if self._first else f"\n{page}", flush=True)
        self._first = False
