"""How far a long command is: on a terminal only, and gone when it is done."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from shmtable.formats import Progress


@contextmanager
def progress_bar(what: str) -> Iterator[Progress]:
    """Show a bar on standard error while the block runs.

    Without the package ``rich`` it is a plain percentage, and where standard error is no
    terminal, nothing.

    Args:
        what: is being done.

    Yields:
        To be called with (bytes done, bytes in all).
    """
    if not sys.stderr.isatty():
        yield _silent
        return
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        plain = _Percentage(what)
        try:
            yield plain.show
        finally:
            plain.clear()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _silent(done: int, total: int) -> None:
    """Nobody looks."""


class _Percentage:
    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = ""

    def show(self, done: int, total: int) -> None:
        text = f"{self._what} {100 * done // max(total, 1)} %"
        if text != self._shown:
            self._shown = text
            print(f"\r{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        print(f"\r{' ' * len(self._shown)}\r", end="", file=sys.stderr, flush=True)
