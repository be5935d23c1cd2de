"""Arena files: who may open them, and who still uses them.

* A file is opened with our own flags and then judged by ``fstat`` of the descriptor, never by
  its path.
* This process opens a file once. POSIX record locks (the portable mutex) belong to the process
  and vanish as soon as *any* descriptor of the file is closed, so what is open already is shared.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from shmtable.errors import (
    ArenaError,
    ArenaInUseError,
    ArenaNotFoundError,
    ArenaPermissionError,
    ClosedError,
    SharedMemoryError,
)
from shmtable.shm import header, process
from shmtable.shm.opened import Opened
from shmtable.shm.places import side_path

Key = tuple[int, int]
# Elsewhere the two families of file locks may get into each other's way.
SIBLING_LOCKS = sys.platform != "linux"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENFILE, errno.EMFILE)


class InUse:
    """Keeps a file open for as long as something refers to it, even if all users let go."""


class Descriptor:
    """An open file, counted: closed when its last user in this process lets go.

    Attributes:
        fd: the descriptor, -1 once closed.
        key: (device, inode), the file's identity.
        users: how many users it has; the one that opened it is the first.
        afterwards: called when it has been closed.
        spare: other descriptors of the file, closed with it.
    """

    def __init__(self, opened: Opened, key: Key) -> None:
        self._opened = opened
        self.fd = opened.fd
        self.key = key
        self.users = 1
        self.afterwards: Callable[[], None] | None = None
        self.spare: list[Opened] = []
        self._gates: dict[str, Any] = {}
        # Nothing to be given back: a call that is interrupted anywhere has let go all the same.
        self._in_use: InUse | None = InUse()
        self._end = weakref.ref(self._in_use, self._close)

    def in_use(self) -> InUse:
        """To be kept by a call while it needs the file.

        Raises:
            ClosedError: it is closed.
        """
        found = self._end()
        if found is None:
            raise ClosedError("the table was closed just now; make or attach it again")
        return found

    def gate(self, which: str) -> Any:
        """The RLock that is the in-process half of one portable lock."""
        with _registry_lock:
            return self._gates.setdefault(which, threading.RLock())

    def forget_gates(self) -> None:
        """In a forked child: the gates' holders are threads of the parent."""
        self._gates.clear()

    def hold(self) -> Descriptor:
        """Count one more user; every ``hold`` is paired with a ``drop``.

        Raises:
            ClosedError: its last user has let go.
        """
        with _registry_lock:
            self._in_use = self.in_use()
            self.users += 1
        return self

    def drop(self) -> None:
        """Count one user less; the last one closes the file."""
        with _registry_lock:
            self.users -= 1
            if self.users == 0:
                self._in_use = None

    def _close(self, _: object) -> None:
        with _registry_lock:
            _open_files.pop(self.key, None)
            self.fd = -1
            self._opened.close()
            for other in self.spare:
                other.close()
        if self.afterwards is not None:
            self.afterwards()


# Weakly: one that an interrupt kept from its user is nobody's, and is closed by the collector.
_open_files: weakref.WeakValueDictionary[Key, Descriptor] = weakref.WeakValueDictionary()
# Re-entrant because a finaliser may run inside it. Held for moments only, and never while
# anything else is waited for.
_registry_lock = threading.RLock()


def _renew_after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()
    for descriptor in list(_open_files.values()):
        descriptor.forget_gates()


process.after_fork(_renew_after_fork)


def key_of(status: os.stat_result) -> Key:
    """The identity of a file."""
    return status.st_dev, status.st_ino


def is_open(key: Key) -> bool:
    """Whether this process has that file open."""
    with _registry_lock:
        return key in _open_files


def register(opened: Opened) -> Descriptor:
    """Take over a descriptor handed to this process or just opened; the caller is a user of it.

    A second number for a file that is open already stays open, unused: closing it would drop
    this process's record locks.
    """
    with _registry_lock:
        key = key_of(os.fstat(opened.fd))
        known = _find_open(key)
        if known is None:
            known = _open_files[key] = Descriptor(opened, key)
        else:
            known.spare.append(opened)
        return known


def _find_open(key: Key) -> Descriptor | None:
    """The descriptor this process already has of a file, with one more user, or None."""
    found = _open_files.get(key)
    try:
        return None if found is None else found.hold()
    except ClosedError:  # by a finaliser that ran in between
        return None


# -- opening -------------------------------------------------------------------------------------


def judge(status: os.stat_result, where: str) -> None:
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
            "table has mode 0600: remove the file, or chmod it if you trust its content",
            path=where,
        )


def open_file(path: str, *, magic_link: bool = False, create: bool = False) -> Descriptor:
    """Open an arena file, or share what this process has open already.

    Args:
        path: the file.
        magic_link: it is an entry of ``/proc/<pid>/fd``, which is a link by nature.
        create: make a new one, mode 0600, that must not exist yet.

    Raises:
        ArenaNotFoundError: there is no such file.
        ArenaPermissionError: not a regular file, not ours, or open to others.
        ArenaInUseError: asked to create it, and it exists.
        SharedMemoryError: asked to create it, and there is no room.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    flags |= 0 if magic_link else os.O_NOFOLLOW
    flags |= os.O_CREAT | os.O_EXCL if create else 0
    try:
        with _registry_lock:
            if not create:
                status = os.stat(path) if magic_link else os.lstat(path)
                # Judged before opening too: opening a device or a pipe may block or act.
                judge(status, path)
                known = _find_open(key_of(status))
                if known is not None:
                    return known
            opened = Opened(os.open, path, flags, 0o600)
            if create:
                os.fchmod(opened.fd, 0o600)  # whatever the umask took away
            judge(os.fstat(opened.fd), path)
            return register(opened)
    except ArenaError:
        raise
    except OSError as error:
        raise _as_ours(error, path) from error


def _as_ours(error: OSError, path: str) -> OSError:
    """The error of an opening, in words of ours."""
    if isinstance(error, FileExistsError):
        return in_use(path)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        text = f"{path} does not exist; create the table first, or check its name by 'shmtable ls'"
        return ArenaNotFoundError(text, path=path)
    if error.errno == errno.ELOOP:
        text = f"{path} is a symbolic link; remove it, or choose another name"
        return ArenaPermissionError(text, path=path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        text = (
            f"{path} cannot be opened by user {os.geteuid()} ({error.strerror}); a table is "
            "shared by processes of one user, in a folder that user may write to"
        )
        return ArenaPermissionError(text, path=path)
    text = f"{path} cannot be opened: {error.strerror}; free some of it or choose another place"
    if error.errno in _NO_ROOM:
        return SharedMemoryError(text, path=path)
    return ArenaError(text, path=path)


def create_nameless() -> Descriptor | None:
    """A file without a name, or None where the system has no such files."""
    memfd_create = getattr(os, "memfd_create", None)
    if memfd_create is None:
        return None
    try:
        opened = Opened(memfd_create, "shmtable", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return None  # an old kernel or a sandbox
    os.fchmod(opened.fd, 0o600)
    return register(opened)


def lock_file(path: str | None, arena_file: Descriptor) -> Descriptor:
    """The file whose bytes the portable locks lock; the caller is a user of it."""
    if path is None or not SIBLING_LOCKS:
        return arena_file.hold()
    sibling = side_path(path, ".mutex")
    try:
        return open_file(sibling, create=True)
    except ArenaInUseError:
        return open_file(sibling)


def seal_size(fd: int) -> None:
    """Where the file can be sealed (memfd), fix its size: shrinking it would kill its users."""
    add = getattr(fcntl, "F_ADD_SEALS", None)
    if add is None:
        return
    try:
        fcntl.fcntl(fd, add, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        pass  # not a memfd


def in_use(path: str, by: str = "another process") -> ArenaInUseError:
    """The error for a name that is taken."""
    return ArenaInUseError(
        f"{path} is in use by {by}; attach to it, close it there, end what has it open, or choose "
        "another name",
        path=path,
    )


def read_header(fd: int, where: str) -> header.Header:
    """Read and check the header by ``pread``: a hole in the file cannot hurt that way."""
    words = header.parse(os.pread(fd, header.HEADER_BYTES, 0), os.fstat(fd).st_size, where)
    text = os.pread(fd, words[header.JSON_BYTES], words[header.JSON_OFFSET])
    return header.parse_json(words, text, where)


# -- only to look ------------------------------------------------------------------------------


def open_to_read(path: str, *, magic_link: bool = False) -> Descriptor | Opened:
    """A private file of ours, for reading: what this process has open already, or anew.

    To be given back to ``close_read``. Who holds an ``Opened`` is no user of the file.

    Raises:
        ArenaNotFoundError, ArenaPermissionError: as ``open_file``.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        with _registry_lock:
            status = os.stat(path) if magic_link else os.lstat(path)
            judge(status, path)  # before opening too: opening a device or a pipe may block or act
            known = _find_open(key_of(status))
            if known is not None:
                return known
            opened = Opened(os.open, path, flags | (0 if magic_link else os.O_NOFOLLOW))
        try:
            judge(os.fstat(opened.fd), path)
        except BaseException:
            close_read(opened)
            raise
        return opened
    except ArenaError:
        raise
    except OSError as error:
        raise _as_ours(error, path) from error


def close_read(opened: Descriptor | Opened) -> None:
    """Give back what ``open_to_read`` returned.

    Should this process have come to use the file meanwhile, it stays open as long as that lasts:
    the process's record locks would go with it.
    """
    if isinstance(opened, Descriptor):
        opened.drop()
        return
    with _registry_lock:
        known = _open_files.get(key_of(os.fstat(opened.fd)))
        if known is None:
            opened.close()
        else:
            known.spare.append(opened)
