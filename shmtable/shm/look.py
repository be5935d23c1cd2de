"""Looking at an arena file from outside: nothing is mapped, locked, declared or changed.

What is looked at is a copy, made by ``pread``: a hole in the file reads as zeros and takes no
memory, and a file that is cut short or removed meanwhile cannot end the process that looks.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from types import TracebackType

from shmtable.errors import ArenaDamagedError, ArenaError
from shmtable.shm import files, header, places, process
from shmtable.shm.opened import Opened

_MOST_NAMED = 4


class Look:
    """An open arena file, for reading only.

    Args:
        opened: by ``files.open_to_read``; it is given back in the end.
        where: the file, for messages.

    Attributes:
        header: checked.
        key: (device, inode).

    Raises:
        ArenaVersionError, ArenaDamagedError: no arena that this version knows.
    """

    def __init__(self, opened: files.Descriptor | Opened, where: str) -> None:
        self._opened: files.Descriptor | Opened | None = opened
        self._fd = opened.fd
        self.where = where
        try:
            self.key = files.key_of(os.fstat(self._fd))
            self.header = files.read_header(self._fd, where)
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: str, *, magic_link: bool = False) -> Look:
        """Open a file.

        Args:
            path: of the file.
            magic_link: it is an entry of ``/proc/<pid>/fd``, which is a link by nature.

        Raises:
            ArenaNotFoundError, ArenaPermissionError: as ``files.open_file``.
            ArenaVersionError, ArenaDamagedError: no arena that this version knows.
        """
        return cls(files.open_to_read(path, magic_link=magic_link), path)

    def words(self) -> memoryview:
        """The first 4096 bytes as 512 int64: a copy, of which nothing reaches the file."""
        copy = bytearray(self.read(0, header.HEADER_BYTES))
        return memoryview(copy).cast("q")

    def read(self, offset: int, count: int) -> bytes:
        """A copy of so many bytes.

        Raises:
            ArenaDamagedError: the file ends before.
        """
        pieces = []
        while count > 0:
            piece = os.pread(self._fd, min(count, 1 << 26), offset)
            if not piece:
                raise ArenaDamagedError(
                    f"{self.where} has been cut short while it was read; create the table again",
                    path=self.where,
                )
            pieces.append(piece)
            offset, count = offset + len(piece), count - len(piece)
        return b"".join(pieces)

    def taken_bytes(self) -> int:
        """Memory (on disk: disk space) that the file takes."""
        return os.fstat(self._fd).st_blocks * 512

    def is_linked(self) -> bool:
        """Whether the file still has a name; one made without any never had."""
        return os.fstat(self._fd).st_nlink > 0

    def close(self) -> None:
        """Let go. Safe to call twice."""
        opened, self._opened = self._opened, None
        if opened is not None:
            files.close_read(opened)

    def __enter__(self) -> Look:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def is_used(path: str) -> bool | None:
    """Whether a process has an arena file open, in whatever namespace; None if that is not known.

    Asks for the lock that leftovers are known by, and lets it go at once.
    """
    try:
        with places.name_lock(path, timeout_s=1.0):
            opened = files.open_to_read(path)
            try:
                if isinstance(opened, files.Descriptor):
                    return True  # by this process
                fcntl.flock(opened.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(opened.fd, fcntl.LOCK_UN)
                return False
            except BlockingIOError:
                return True
            finally:
                files.close_read(opened)
    except (ArenaError, OSError):
        return None


def users() -> dict[files.Key, list[tuple[int, int]]]:
    """By file, which of this user's processes have an arena open: (process id, descriptor).

    Empty where the system has no ``/proc``.
    """
    found: dict[files.Key, list[tuple[int, int]]] = {}
    with suppress(OSError):
        for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
            folder = f"/proc/{pid}/fd"
            with suppress(OSError):
                for number in os.listdir(folder):
                    with suppress(OSError):  # closed, or not ours to see
                        if "shmtable" in os.readlink(f"{folder}/{number}"):
                            key = files.key_of(os.stat(f"{folder}/{number}"))
                            found.setdefault(key, []).append((pid, int(number)))
    return found


def users_named(path: str) -> str:
    """Which of this user's processes have an arena file open, for messages."""
    pids: set[int] = set()
    with suppress(OSError):
        pids = {pid for pid, _ in users().get(files.key_of(os.lstat(path)), [])}
    if not pids:
        return "another process"
    shown = [_named(pid) for pid in sorted(pids)]
    more = f" and {len(shown) - _MOST_NAMED} more" if len(shown) > _MOST_NAMED else ""
    return ", ".join(shown[:_MOST_NAMED]) + more


def _named(pid: int) -> str:
    if pid == os.getpid():
        return "this process"
    return f"process {pid} ({process.command(pid) or 'command unknown'})"
