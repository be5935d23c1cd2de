"""Replacing a file whole or not at all, however the writer ends."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import filelock

from shmtable.errors import LockTimeoutError
from shmtable.shm import process
from shmtable.shm.opened import Opened

MODE = 0o644
_SUFFIX = ".partial"
# Elsewhere than on Linux it is left out.
_advise = getattr(os, "posix_fadvise", None)


@contextmanager
def replacing(path: str, timeout_s: float = 600.0) -> Iterator[int]:
    """Write a new file and put it in the place of ``path`` when the block ends without an error.

    One writer at a time: a lock file (``path + ".lock"``) stands beside it and stays. What
    writers that died have left unfinished is removed first.

    Args:
        path: of the file, which need not be there yet.
        timeout_s: how long to wait for another writer.

    Yields:
        A descriptor of the new, empty file, to be filled; it is closed afterwards.

    Raises:
        LockTimeoutError: another writer took longer.
        OSError: the folder cannot be written to, or has no space; ``path`` is as it was.
    """
    folder, name = os.path.split(os.path.abspath(path))
    os.stat(folder)  # the lock would create it, and a mistyped path go unnoticed
    prefix = f".{name}."
    try:
        lock = filelock.FileLock(f"{path}.lock", timeout=timeout_s)
        lock.acquire()
    except filelock.Timeout:
        raise LockTimeoutError(
            f"{path}: {process.locker(path + '.lock')} has been writing it for {timeout_s:g} s; "
            "wait for it, or store to another path",
            path=path,
            timeout_s=timeout_s,
        ) from None
    try:
        _remove_leftovers(folder, prefix)
        _drop_from_cache(path)
        temporary = os.path.join(folder, f"{prefix}{secrets.token_hex(8)}{_SUFFIX}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with Opened(os.open, temporary, flags, MODE) as opened:
                os.fchmod(opened.fd, MODE)  # whatever the umask: others may read it
                yield opened.fd
                os.fsync(opened.fd)
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(folder)
    finally:
        lock.release()


def _remove_leftovers(folder: str, prefix: str) -> None:
    # Under the lock, so whoever was writing these is dead.
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(_SUFFIX):
                with suppress(OSError):
                    os.unlink(entry.path)


def _drop_from_cache(path: str) -> None:
    # The file in place will soon be gone. What the system's cache holds of it is better used for
    # the new one: memory that has just been in use is quicker to get than any other.
    if _advise is not None:
        with suppress(OSError):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            with Opened(os.open, path, flags) as opened:
                _advise(opened.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_folder(folder: str) -> None:
    # Otherwise a power cut could bring back the old name of the new file.
    opened: list[int] = []
    try:
        # In one go, as ``Opened`` does, which takes no folder.
        opened.extend(map(os.open, [folder], [os.O_RDONLY | os.O_DIRECTORY]))
        os.fsync(opened[0])
    finally:
        for descriptor in opened:
            os.close(descriptor)
