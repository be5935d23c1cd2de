"""A nameless file for rows that do not lie in the table's file as they are: unpacked, unpickled."""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from types import TracebackType
from typing import NoReturn

from shmtable.errors import FileDamagedError
from shmtable.formats.archive import Archive, Member


class Spool:
    """Takes rows on disk, so that they need no memory; gone when closed.

    Args:
        most_bytes: refuse members that claim to hold more when unpacked; None for no limit but
            the disk's free space.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        self._most_bytes = most_bytes
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        self._end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self._file.fileno(), view, self._end)
            self._end += done
            view = view[done:]

    @property
    def place(self) -> tuple[int, int]:
        """Descriptor, and where the next byte will go."""
        return self._file.fileno(), self._end

    def inflate(self, archive: Archive, member: Member) -> tuple[int, int]:
        """Unpack a member and compare its checksum; returns descriptor and offset.

        Raises:
            FileDamagedError: too large, or not what its entry claims.
        """
        free = shutil.disk_usage(tempfile.gettempdir()).free
        limit = free if self._most_bytes is None else min(free, self._most_bytes)
        if member.size > limit:
            self._refuse(
                archive, member, f"claims {member.size} bytes unpacked, at most {limit} are taken"
            )
        place, crc, size = self.place, 0, 0
        for piece in archive.inflate(member, member.size + 1):
            crc = zlib.crc32(piece, crc)
            size += len(piece)
            self.write(piece)
        if size != member.size or crc != member.crc:
            self._refuse(archive, member, "does not have the size and checksum stated for it")
        return place

    def _refuse(self, archive: Archive, member: Member, what: str) -> NoReturn:
        raise FileDamagedError(
            f"{archive.where(member.name)}: {what}; copy the file anew, or restore an older one",
            path=archive.path,
            member=member.name,
        )
