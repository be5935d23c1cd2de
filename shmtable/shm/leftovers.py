"""Who still uses an arena file, and removing those that nobody does.

Who uses a file holds a shared ``flock`` on it, so an exclusive one granted proves a leftover,
and a path stays the same file for as long as somebody has it open.
"""

from __future__ import annotations

import errno
import fcntl
import os

from shmtable.errors import ArenaInUseError
from shmtable.shm import files, header, look
from shmtable.shm.places import name_lock, shared_prefix


def share(fd: int) -> None:
    """Declare this process a user of the file."""
    fcntl.flock(fd, fcntl.LOCK_SH)


def is_unused(fd: int) -> bool:
    """Whether nobody else uses the file; if so it is now locked exclusively.

    Only under the file's name lock, and only with a descriptor opened by path: one inherited
    from another process shares that process's lock.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


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
        if remove_unused(path, keep_finished=keep_finished):
            return
    except FileNotFoundError:
        return
    if keep_finished:
        raise ArenaInUseError(
            f"{path} exists already; attach to it, remove the file, or choose another name",
            path=path,
        )
    raise files.in_use(path, look.users_named(path))


def remove_unused(path: str, *, keep_finished: bool = False) -> bool:
    """Remove a file of ours if nobody uses it; the caller holds the name lock.

    Args:
        path: of the file.
        keep_finished: only if its creation was cut off.

    Returns:
        Whether it was removed.
    """
    status = os.lstat(path)
    files.judge(status, path)
    if files.is_open(files.key_of(status)):
        return False  # we use it ourselves
    descriptor = files.open_file(path)
    try:
        if keep_finished and os.pread(descriptor.fd, 8, 8 * header.MAGIC).strip(b"\0"):
            return False
        if not is_unused(descriptor.fd):
            return False
        os.unlink(path)
        return True
    finally:
        descriptor.drop()


def remove(path: str, key: files.Key) -> None:
    """Remove the name of a file that this process has open.

    Needs no name lock, and so may be called by a finaliser: while we share the file nobody takes
    it for a leftover, so nobody puts another one in its place.
    """
    if files.key_of(os.lstat(path)) == key:
        os.unlink(path)


def sweep() -> list[str]:
    """Remove the arenas in memory that dead processes of this user left behind.

    Tables in a directory of the user's are never touched.

    Returns:
        The removed paths, sorted.
    """
    folder, prefix = os.path.split(shared_prefix())
    removed = []
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        if not entry.startswith(prefix):
            continue
        try:
            with name_lock(path, timeout_s=1.0):
                if remove_unused(path):
                    removed.append(path)
        except OSError:
            continue  # busy, gone by itself, or not ours to judge: not a leftover
    return removed
