"""Where arena files lie, what they may be called, and the lock that serialises a name."""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from shmtable.errors import ArenaError, ArenaNotFoundError, ArenaPermissionError, SpecError
from shmtable.shm import process

NAME_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NAME_LOCK_TIMEOUT_S = 20.0
NAME_LOCKS = 64
SUFFIX = ".shmtable"
# No name may begin with a dot, so this cannot be one.
ANONYMOUS = ".anonymous-"
# Fixed, so that processes with different TMPDIR still meet.
TEMPORARY = "/tmp"

# By thread: the lock files it holds now.
_held: set[tuple[int, str]] = set()


def lock_directory() -> str:
    """This user's folder for locks, made if missing.

    Raises:
        ArenaPermissionError: it is not a folder, or others may write to it.
    """
    path = f"{TEMPORARY}/shmtable-{os.geteuid()}"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(path)
    private = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    if not (stat.S_ISDIR(status.st_mode) and private):
        raise ArenaPermissionError(
            f"{path} has mode {stat.filemode(status.st_mode)} and owner {status.st_uid}; it must "
            f"be a folder of user {os.geteuid()} with mode 0700: remove it",
            path=path,
        )
    return path


def shared_prefix() -> str:
    """What the paths of this user's arenas in memory begin with."""
    folder = "/dev/shm"
    if sys.platform != "linux" or not os.path.isdir(folder):
        folder = lock_directory() + "/arenas"
        os.makedirs(folder, mode=0o700, exist_ok=True)
    return f"{folder}/shmtable-{os.geteuid()}-"


def path_of(name: str, directory: str | None) -> str:
    """The file of a named table.

    Raises:
        SpecError: the name is not one.
    """
    if not isinstance(name, str) or not NAME_RULE.fullmatch(name):
        raise SpecError(
            f"table name {name!r} must be 1 to 100 letters, digits, '.', '_' or '-' and begin "
            "with a letter or digit; choose such a name",
            name=name,
        )
    if directory is None:
        return shared_prefix() + name
    return os.path.join(os.path.abspath(directory), name + SUFFIX)


def random_path() -> str:
    """A path for an arena in memory that nobody is meant to find by name."""
    return shared_prefix() + ANONYMOUS + secrets.token_hex(16)


def side_path(path: str, suffix: str) -> str:
    """Where a companion of an arena file lies: beside it, but never in ``/dev/shm``."""
    if path.startswith(shared_prefix()):
        return os.path.join(lock_directory(), os.path.basename(path) + suffix)
    return path + suffix


def _lock_path(path: str) -> str:
    if path.startswith(shared_prefix()):
        # A few files for all names, since a lock file cannot safely be removed again.
        number = zlib.crc32(os.path.basename(path).encode()) % NAME_LOCKS
        return f"{lock_directory()}/names-{number:02d}.lock"
    return path + ".lock"


@contextmanager
def name_lock(path: str, timeout_s: float = NAME_LOCK_TIMEOUT_S) -> Iterator[None]:
    """Serialise create, attach and sweep of one file between processes and threads.

    Not to be nested: two names may share a lock.

    Raises:
        ArenaError: another process kept it for ``timeout_s``.
        ArenaNotFoundError: the folder does not exist.
        ArenaPermissionError: the folder cannot be written.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ArenaNotFoundError(f"{folder} is not an existing folder; make it first", path=path)
    lock = FileLock(_lock_path(path), mode=0o600)
    mine = threading.get_ident(), _lock_path(path)
    try:
        lock.acquire(timeout=timeout_s, poll_interval=0.01)
    except Timeout as error:
        raise ArenaError(
            f"{path}: {process.locker(_lock_path(path))} has been creating, attaching or removing "
            f"it for {timeout_s:g} s; end that process or try again",
            path=path,
        ) from error
    except PermissionError as error:
        raise ArenaPermissionError(
            f"{folder} cannot be written by user {os.geteuid()} ({error}); choose another folder",
            path=path,
        ) from error
    try:
        _held.add(mine)
        yield
    finally:
        _held.discard(mine)
        lock.release()


def holds(path: str) -> bool:
    """Whether this thread is inside ``name_lock(path)``: a finaliser must not wait for it."""
    return (threading.get_ident(), _lock_path(path)) in _held
