"""Arena files: where they lie, who may open them, who still uses them.

Rules kept here:

* A file is opened with our own flags and then judged by ``fstat`` of the descriptor, never by
  its path.
* This process opens a file once. POSIX record locks (the portable mutex) belong to the process
  and vanish as soon as *any* descriptor of the file is closed, so what is open already is shared.
* Who uses a file holds a shared ``flock`` on it; an exclusive one granted proves a leftover.
* Create, attach and removal of one name are serialised by a name lock outside ``/dev/shm``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from filelock import FileLock, Timeout

from shmtable.errors import (
    ArenaError,
    ArenaInUseError,
    ArenaNotFoundError,
    ArenaPermissionError,
    SpecError,
)
from shmtable.shm import header, process

NAME_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NAME_LOCK_TIMEOUT_S = 20.0
SUFFIX = ".shmtable"
# Fixed, so that processes with different TMPDIR still meet.
TEMPORARY = "/tmp"

Key = tuple[int, int]


class Descriptor:
    """An open arena file, counted: closed when its last user in this process lets go.

    Attributes:
        fd: the descriptor, -1 once closed.
        key: (device, inode), the file's identity.
        gates: RLocks, the in-process halves of the portable locks, by lock.
    """

    def __init__(self, fd: int, key: Key) -> None:
        self.fd = fd
        self.key = key
        self.users = 1
        self.gates: dict[str, Any] = {}

    def gate(self, which: str) -> Any:
        """The in-process half of one portable lock."""
        with _registry_lock:
            return self.gates.setdefault(which, threading.RLock())

    def hold(self) -> Descriptor:
        """Count one more user; every ``hold`` is paired with a ``drop``."""
        with _registry_lock:
            self.users += 1
        return self

    def drop(self) -> None:
        """Count one user less; the last one closes the file."""
        with _registry_lock:
            self.users -= 1
            if self.users == 0:
                _open_files.pop(self.key, None)
                fd, self.fd = self.fd, -1
                os.close(fd)


_open_files: dict[Key, Descriptor] = {}
# Re-entrant because a finaliser may run inside it. Held for moments only, and never while a
# name lock is waited for.
_registry_lock = threading.RLock()
_name_locks: dict[str, int] = {}


def _renew_after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()
    _name_locks.clear()
    for descriptor in _open_files.values():
        descriptor.gates.clear()


process.after_fork(_renew_after_fork)


def key_of(status: os.stat_result) -> Key:
    """The identity of a file."""
    return status.st_dev, status.st_ino


def register(fd: int) -> Descriptor:
    """Take over a descriptor that is new in this process; the caller is its first user."""
    with _registry_lock:
        known = _open_files.get(key_of(os.fstat(fd)))
        if known is not None and known.fd == fd:
            return known.hold()
        found = Descriptor(fd, key_of(os.fstat(fd)))
        return _open_files.setdefault(found.key, found)


def find_open(key: Key) -> Descriptor | None:
    """The descriptor this process already has of a file, with one more user, or None."""
    with _registry_lock:
        found = _open_files.get(key)
        return None if found is None else found.hold()


# -- places --------------------------------------------------------------------------------------


def lock_directory() -> str:
    """This user's folder for name locks, made if missing.

    Raises:
        ArenaPermissionError: somebody else made it, or others may write to it.
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
    """What the paths of this user's named arenas begin with."""
    ram = sys.platform == "linux" and os.path.isdir("/dev/shm")
    folder = "/dev/shm" if ram else lock_directory()
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


def side_path(path: str, suffix: str) -> str:
    """Where a companion of an arena file lies: beside it, but never in ``/dev/shm``."""
    if path.startswith(shared_prefix()):
        return os.path.join(lock_directory(), os.path.basename(path) + suffix)
    return path + suffix


@contextmanager
def name_lock(path: str, timeout_s: float = NAME_LOCK_TIMEOUT_S) -> Iterator[None]:
    """Serialise create, attach and removal of one file between processes and threads.

    Raises:
        ArenaError: another process kept it for ``timeout_s``.
        ArenaNotFoundError: the folder does not exist.
    """
    me = threading.get_ident()
    if _name_locks.get(path) == me:  # a finaliser that runs inside this thread's own creation
        yield
        return
    lock = FileLock(side_path(path, ".lock"), timeout=timeout_s, mode=0o600, poll_interval=0.01)
    try:
        lock.acquire()
    except Timeout as error:
        raise ArenaError(
            f"{path}: another process has been creating, attaching or removing it for "
            f"{timeout_s:g} s; end that process or try again",
            path=path,
        ) from error
    except FileNotFoundError as error:
        raise ArenaNotFoundError(
            f"{os.path.dirname(path)} is not an existing folder; make it first", path=path
        ) from error
    except PermissionError as error:
        raise ArenaPermissionError(
            f"{os.path.dirname(path)} cannot be written by user {os.geteuid()} ({error}); choose "
            "another directory=",
            path=path,
        ) from error
    try:
        _name_locks[path] = me
        yield
    finally:
        _name_locks.pop(path, None)
        lock.release()


# -- opening -------------------------------------------------------------------------------------


def _judge(status: os.stat_result, where: str) -> None:
    """Refuse what is not a private regular file of ours."""
    if not stat.S_ISREG(status.st_mode):
        raise ArenaPermissionError(
            f"{where} is {stat.filemode(status.st_mode)}, not a regular file; choose another name",
            path=where,
        )
    if status.st_uid != os.geteuid():
        raise ArenaPermissionError(
            f"{where} belongs to user {status.st_uid}, this process is user {os.geteuid()}; a "
            "table is shared by processes of one user",
            path=where,
        )
    if status.st_mode & 0o077:
        raise ArenaPermissionError(
            f"{where} has mode {stat.S_IMODE(status.st_mode):04o}, so others may touch it; a "
            "table has mode 0600: remove the file or chmod it if you trust its content",
            path=where,
        )


def open_file(path: str, *, magic_link: bool = False) -> Descriptor:
    """Open an existing arena file, or share what this process has open already.

    Args:
        path: the file.
        magic_link: it is an entry of ``/proc/<pid>/fd``, which is a link by nature.

    Raises:
        ArenaNotFoundError: there is no such file.
        ArenaPermissionError: not a regular file, not ours, or open to others.
    """
    try:
        status = os.stat(path) if magic_link else os.lstat(path)
        # Judged before opening too: opening a device or a pipe may block or act.
        _judge(status, path)
        with _registry_lock:
            known = find_open(key_of(status))
            if known is not None:
                return known
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            fd = os.open(path, flags | (0 if magic_link else os.O_NOFOLLOW))
            try:
                _judge(os.fstat(fd), path)
            except BaseException:
                os.close(fd)
                raise
            return register(fd)
    except FileNotFoundError as error:
        if isinstance(error, ArenaNotFoundError):
            raise
        raise ArenaNotFoundError(
            f"{path} does not exist; create the table first, or check its name", path=path
        ) from error
    except PermissionError as error:
        if isinstance(error, ArenaPermissionError):
            raise
        raise ArenaPermissionError(
            f"{path} cannot be opened by user {os.geteuid()} ({error}); a table is shared by "
            "processes of one user",
            path=path,
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ArenaPermissionError(
                f"{path} is a symbolic link; remove it, or choose another name", path=path
            ) from error
        raise


def create_file(path: str) -> Descriptor:
    """Create a file that does not exist yet, mode 0600; the caller holds its name lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise in_use(path) from error
    try:
        os.fchmod(fd, 0o600)  # whatever the umask took away
    except BaseException:
        os.close(fd)
        raise
    return register(fd)


def create_anonymous() -> tuple[Descriptor, str | None]:
    """A file without a name (Linux), or with a random one, which is returned too."""
    memfd_create = getattr(os, "memfd_create", None)
    if memfd_create is not None:
        try:
            fd = memfd_create("shmtable", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            pass  # an old kernel or a sandbox; the way below always works
        else:
            os.fchmod(fd, 0o600)
            return register(fd), None
    path = shared_prefix() + ".anonymous-" + secrets.token_hex(16)
    return create_file(path), path


def seal_size(fd: int) -> None:
    """Where the file can be sealed (memfd), fix its size: shrinking it would kill its readers."""
    add = getattr(fcntl, "F_ADD_SEALS", None)
    if add is None:
        return
    try:
        fcntl.fcntl(fd, add, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        pass  # not a memfd


def in_use(path: str) -> ArenaInUseError:
    """The error for a name that is taken."""
    return ArenaInUseError(
        f"{path} is in use by a living process; attach to it, close it there, or choose another "
        "name",
        path=path,
    )


# -- who uses a file -----------------------------------------------------------------------------


def share(fd: int) -> None:
    """Declare this process a user of the file. The caller holds its name lock, if it has one."""
    fcntl.flock(fd, fcntl.LOCK_SH)


def is_unused(fd: int) -> bool:
    """Whether nobody uses the file; if so it is now locked exclusively.

    Only under the file's name lock: turning the lock into a shared one is not atomic.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def read_header(fd: int, where: str) -> header.Header:
    """Read and check the header by ``pread``: a hole in the file cannot hurt that way."""
    words = header.parse(os.pread(fd, header.HEADER_BYTES, 0), os.fstat(fd).st_size, where)
    text = os.pread(fd, words[header.JSON_BYTES], words[header.JSON_OFFSET])
    return header.parse_json(words, text, where)


def clear_name(path: str, *, keep_finished: bool) -> None:
    """Make room for a new file: remove a leftover; the caller holds the name lock.

    Args:
        path: the file that is about to be created.
        keep_finished: keep a file whose creation was completed, used or not (tables on disk).

    Raises:
        ArenaInUseError: a living process uses it, or it is to be kept.
        ArenaPermissionError: it is not ours to remove.
    """
    try:
        if find_unused(path, keep_finished=keep_finished):
            os.unlink(path)
            return
    except FileNotFoundError:
        return
    if keep_finished:
        raise ArenaInUseError(
            f"{path} exists already; attach to it, remove the file, or choose another name",
            path=path,
        )
    raise in_use(path)


def find_unused(path: str, *, keep_finished: bool = False) -> bool:
    """Whether a file of ours is a leftover; the caller holds the name lock."""
    status = os.lstat(path)
    _judge(status, path)
    with _registry_lock:
        if key_of(status) in _open_files:
            return False  # in use by ourselves; opening and closing it would drop our locks
        descriptor = open_file(path)
    try:
        if keep_finished and os.pread(descriptor.fd, 8, 0).strip(b"\0"):
            return False
        return is_unused(descriptor.fd)
    finally:
        descriptor.drop()


def remove(path: str, key: Key) -> None:
    """Remove a file unless another one stands in its place by now."""
    with name_lock(path):
        try:
            if key_of(os.lstat(path)) == key:
                os.unlink(path)
        except FileNotFoundError:
            pass


def sweep() -> list[str]:
    """Remove the arenas that dead processes of this user left behind.

    Tables in a directory of the user's are never touched.

    Returns:
        The removed paths, sorted.
    """
    folder, prefix = os.path.split(shared_prefix())
    removed = []
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        if not entry.startswith(prefix) or entry.endswith(".lock"):
            continue
        try:
            with name_lock(path, timeout_s=1.0):
                if find_unused(path):
                    os.unlink(path)
                    removed.append(path)
        except OSError:
            continue  # busy, gone by itself, or not ours to judge: not a leftover
    return removed
