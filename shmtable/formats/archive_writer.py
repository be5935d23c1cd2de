"""Writing zip archives whose members grow side by side, in one pass and without a second copy.

How many rows of a column there will be is known only at the end, and so is its checksum. So each
member gets room for the most it may need, its data is written where it belongs as it comes, and
headers and directory follow last. What a member leaves of its room is a hole in the file: zip
readers go by the directory.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence

_VERSION = 45  # 64-bit sizes
_UTF8 = 0x800
_DATE = 0x21  # 1980-01-01, the earliest: equal content makes equal files
_FULL32 = 0xFFFFFFFF
_LOCAL_EXTRA = 20
# "Not needed any more" makes Linux start bringing fresh pages to the disk, so that little is left
# for the final fsync to wait for. Elsewhere it is left out.
_start_writing = getattr(os, "posix_fadvise", None)
_WORTH_BYTES = 256 << 10


class MemberWriter:
    """One member being written, uncompressed.

    Attributes:
        name: of the member.
        size: bytes so far.
        crc: CRC-32 of the content; whoever appends keeps it, since only they know how best.
    """

    def __init__(self, descriptor: int, name: str, header_offset: int, most_bytes: int) -> None:
        self.name = name
        self.size = 0
        self.crc = 0
        self.header_offset = header_offset
        self._descriptor = descriptor
        self._most_bytes = most_bytes
        self._data_offset = header_offset + 30 + len(name.encode()) + _LOCAL_EXTRA

    @property
    def end(self) -> int:
        """The first byte behind its room."""
        return self._data_offset + self._most_bytes

    def write(self, views: Sequence[memoryview], at: int) -> int:
        """Write byte buffers one after the other, ``at`` bytes into the member.

        Leaves ``size`` and ``crc`` alone. Returns the bytes written.

        Raises:
            OSError: no space, for example.
        """
        if at + sum(map(len, views)) > self._most_bytes:
            raise ValueError(f"member {self.name!r} has room for {self._most_bytes} bytes only")
        position = begin = self._data_offset + at
        for first in range(0, len(views), 1000):  # the system takes 1024 at a time
            pending = [view for view in views[first : first + 1000] if len(view)]
            while pending:
                done = os.pwritev(self._descriptor, pending, position)
                position += done
                while pending and done >= len(pending[0]):
                    done -= len(pending.pop(0))
                if done:
                    pending[0] = pending[0][done:]
        if _start_writing is not None and position - begin >= _WORTH_BYTES:
            _start_writing(self._descriptor, begin, position - begin, os.POSIX_FADV_DONTNEED)
        return position - begin

    def append(self, data: bytes | memoryview) -> None:
        """Write a buffer at the end, and count it in."""
        self.size += self.write([memoryview(data)], self.size)
        self.crc = zlib.crc32(data, self.crc)

    def local_header(self) -> bytes:
        """What stands before the data."""
        name = self.name.encode()
        extra = struct.pack("<2H2Q", 1, 16, self.size, self.size)
        return self._common(b"PK\x03\x04", name, len(extra)) + name + extra

    def entry(self) -> bytes:
        """What stands in the directory."""
        name = self.name.encode()
        extra = struct.pack("<2H3Q", 1, 24, self.size, self.size, self.header_offset)
        fixed = self._common(b"PK\x01\x02" + struct.pack("<H", 3 << 8 | _VERSION), name, len(extra))
        mode = 0o100644 << 16
        return fixed + struct.pack("<3H2I", 0, 0, 0, mode, _FULL32) + name + extra

    def _common(self, head: bytes, name: bytes, extra_bytes: int) -> bytes:
        sizes = (self.crc, _FULL32, _FULL32)
        fields = (_VERSION, _UTF8, 0, 0, _DATE, *sizes, len(name), extra_bytes)
        return head + struct.pack("<5H3I2H", *fields)


class ArchiveWriter:
    """An archive being written to an empty file.

    Args:
        descriptor: of the file; stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._members: list[MemberWriter] = []
        self._end = 0

    def member(self, name: str, most_bytes: int) -> MemberWriter:
        """Begin a member with room for ``most_bytes``."""
        member = MemberWriter(self._descriptor, name, self._end, most_bytes)
        self._members.append(member)
        self._end = member.end
        return member

    def add(self, name: str, data: bytes) -> None:
        """Write a member of which everything is known."""
        self.member(name, len(data)).append(data)

    def finish(self, first: Sequence[str] = ()) -> None:
        """Write the members' headers and the directory, with the members ``first`` leading it."""
        for member in self._members:
            os.pwrite(self._descriptor, member.local_header(), member.header_offset)
        ranks = {name: rank for rank, name in enumerate(first)}
        ordered = sorted(self._members, key=lambda m: ranks.get(m.name, len(ranks)))
        directory = b"".join(member.entry() for member in ordered)
        count, size, offset = len(ordered), len(directory), self._end
        versions = (3 << 8 | _VERSION, _VERSION)
        record = struct.pack(
            "<4sQ2H2I4Q", b"PK\x06\x06", 44, *versions, 0, 0, count, count, size, offset
        )
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, offset + size, 1)
        end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, _FULL32, _FULL32, 0)
        tail = directory + record + locator + end
        position = offset
        while tail:
            done = os.pwrite(self._descriptor, tail, position)
            position, tail = position + done, tail[done:]
