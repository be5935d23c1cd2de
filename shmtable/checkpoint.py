"""Saving a table in the background, now and then."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from types import TracebackType

from shmtable.errors import ShmTableError, SpecError
from shmtable.interface import MemoryTable

_DIGITS = 6


class CheckpointEvery:
    """Stores a table every so many minutes, in a thread, until it is stopped.

    A failure (a full disk, say) keeps the files there are, is told by a warning and kept in
    ``error``, and the next attempt comes at its time. Use it in the process that is to resume::

        with CheckpointEvery(table, "checkpoints/replay", minutes=10, keep=3):
            train(table)

    Files are named ``path-000001.zip`` and so on, counting on from those there are; ``latest``
    says what to restore.

    Args:
        table: to be stored.
        path: of the files, without number and suffix; the folder must be there.
        minutes: between the end of one and the beginning of the next, more than 0.
        keep: so many of the newest files stay, at least 1.
        on_error: called with the error instead of warning.

    Attributes:
        saved: files written by this object.
        error: of the last attempt, or None if it went well.

    Raises:
        SpecError: minutes or keep that cannot be.
    """

    def __init__(
        self,
        table: MemoryTable,
        path: str | os.PathLike[str],
        *,
        minutes: float,
        keep: int = 2,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        if not minutes > 0:
            raise SpecError(f"minutes is {minutes!r}; give more than 0")
        if keep < 1:
            raise SpecError(f"keep is {keep!r}; give at least 1")
        self.saved = 0
        self.error: Exception | None = None
        self._table = table
        self._path = os.path.abspath(os.fspath(path))
        self._wait_s = minutes * 60.0
        self._keep = keep
        self._on_error = on_error
        self._stop = threading.Event()
        self._saving = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="shmtable-checkpoint", daemon=True)
        self._thread.start()

    def __enter__(self) -> CheckpointEvery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self, *, save: bool = True) -> None:
        """End the thread, waiting for a file being written; safe to call twice.

        Args:
            save: write one more file, of the table as it is now.
        """
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        if save:
            self.save()

    def save(self) -> bool:
        """Store the table now; whether it went well."""
        with self._saving:
            files = _files(self._path)
            number = max(files, default=0) + 1
            try:
                self._table.store(f"{self._path}-{number:0{_DIGITS}}")
            except (OSError, ShmTableError) as error:
                self.error = error
                self._tell(error, files)
                return False
            self.error = None
            self.saved += 1
            for old in sorted([*files, number])[: -self._keep]:
                _remove(_name(self._path, old))
            return True

    @staticmethod
    def latest(path: str | os.PathLike[str]) -> str | None:
        """The newest file's path, as ``restore`` takes it; None if there is none."""
        where = os.path.abspath(os.fspath(path))
        files = _files(where)
        return f"{where}-{max(files):0{_DIGITS}}" if files else None

    def _run(self) -> None:
        # Counted from the end of the last one: a slow disk is not asked for more and more.
        due = time.monotonic() + self._wait_s
        while not self._stop.wait(max(due - time.monotonic(), 0)):
            self.save()
            due = time.monotonic() + self._wait_s

    def _tell(self, error: Exception, files: list[int]) -> None:
        if self._on_error is not None:
            self._on_error(error)
            return
        left = _name(self._path, max(files)) if files else "none yet"
        warnings.warn(
            f"the table could not be stored ({error}); the last good file is {left}, and the next "
            f"attempt comes in {self._wait_s / 60:g} minutes",
            RuntimeWarning,
            stacklevel=3,
        )


def _name(path: str, number: int) -> str:
    return f"{path}-{number:0{_DIGITS}}.zip"


def _files(path: str) -> list[int]:
    """The numbers of the files there are."""
    folder, base = os.path.split(path)
    found = []
    try:
        names = os.listdir(folder)
    except OSError:
        return []  # storing will say what is wrong with it
    for name in names:
        number = name.removeprefix(f"{base}-").removesuffix(".zip")
        if number.isascii() and number.isdigit() and name == f"{base}-{number}.zip":
            found.append(int(number))
    return found


def _remove(name: str) -> None:
    for path in (name, f"{name}.lock"):
        try:
            os.unlink(path)
        except OSError:
            pass  # somebody else was quicker, or it is not ours to remove
