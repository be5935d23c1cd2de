"""Reading zip archives, with nothing in them believed that has not been checked.

Own code rather than ``zipfile``: the directory is compared with itself, with the members' local
headers and with the size of the file before a single member is read, so that every later number
is known to lie inside the file; and members are given out by place, to be read without a copy.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn

from shmtable.errors import FileDamagedError, FileMissingError, FileUnsafeError
from shmtable.shm.opened import Opened

_NEEDED = 45  # zip's version 4.5: sizes of 64 bits, the last thing of it that is known here
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
STORED, DEFLATED = 0, 8
_MOST_DIRECTORY_BYTES = 16 << 20
# What is unpacked into memory are numbers and names, which compress by a tenth of this at best.
_MOST_RATIO, _SMALL_BYTES = 100, 1 << 20
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 0x1, 0x8, 0x800
_FULL32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Member:
    """One member: its data is ``stored_bytes`` at ``offset``, ``size`` when decompressed."""

    name: str
    method: int
    crc: int
    stored_bytes: int
    size: int
    header_offset: int
    offset: int


class Archive:
    """An open archive, every member's place and name checked.

    Args:
        path: of the file.

    Attributes:
        path: of the open file.
        members: by name.

    Raises:
        FileMissingError: no such file.
        FileDamagedError: not a zip archive, cut short, or contradicting itself.
        FileUnsafeError: a member's name is a path out of the archive.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                self.refuse("is no regular file")
            self._opened = Opened(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise FileMissingError(
                f"{path}: there is no such file; store() adds '.zip' to the path it is given",
                path=path,
            ) from None
        try:
            status = os.fstat(self._opened.fd)
            if not stat.S_ISREG(status.st_mode):
                self.refuse("is no regular file")
            self._bytes = status.st_size
            self.members = self._directory()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._opened.close()

    @property
    def descriptor(self) -> int:
        """Of the open file; -1 once it is closed."""
        return self._opened.fd

    def where(self, name: str) -> str:
        """File and member, for messages."""
        return f"{self.path}: member {name!r}"

    def refuse(self, what: str) -> NoReturn:
        """Raise FileDamagedError about the file as a whole."""
        raise FileDamagedError(
            f"{self.path}: {what}; copy it anew, or restore an older one", path=self.path
        )

    def member(self, name: str) -> Member:
        """A member that must be there."""
        found = self.members.get(name)
        if found is None:
            self.refuse(f"has no member {name!r}")
        return found

    def read(self, name: str, most_bytes: int) -> bytes:
        """A small member's content, its checksum compared.

        Raises:
            FileDamagedError: missing, larger than ``most_bytes``, or changed.
        """
        member = self.member(name)
        if member.method != STORED:
            most_bytes = min(most_bytes, max(_SMALL_BYTES, _MOST_RATIO * member.stored_bytes))
        if member.size > most_bytes:
            raise FileDamagedError(
                f"{self.where(name)}: claims {member.size} bytes, and the rest of the file admits "
                f"at most {most_bytes}; copy it anew, or restore an older one",
                path=self.path,
                member=name,
            )
        data = self.peek(name, member.size)
        if zlib.crc32(data) != member.crc:
            raise FileDamagedError(
                f"{self.where(name)}: the content does not have the checksum stated for it; copy "
                "the file anew, or restore an older one",
                path=self.path,
                member=name,
            )
        return data

    def peek(self, name: str, count: int) -> bytes:
        """The first bytes of a member, unchecked: at most ``count``, exactly that if it has them.

        Raises:
            FileDamagedError: missing, or it cannot be decompressed, or is of another size.
        """
        member = self.member(name)
        count = min(count, member.size)
        if member.method == STORED:
            data = self._pread(member.offset, count)
        else:
            data = b"".join(self.inflate(member, count))
        if len(data) != count:
            self._refuse_size(name)
        return data

    def inflate(self, member: Member, most_bytes: int) -> Iterator[bytes]:
        """Decompress a member's beginning, in pieces: ``most_bytes``, or all there is if less.

        Raises:
            FileDamagedError: it is no compressed data.
        """
        engine = zlib.decompressobj(-zlib.MAX_WBITS)
        missing, position = most_bytes, member.offset
        end = member.offset + member.stored_bytes
        while missing > 0 and not engine.eof:
            feed = engine.unconsumed_tail
            if not feed:
                feed = self._pread(position, min(1 << 20, end - position))
                position += len(feed)
            try:
                piece = engine.decompress(feed, min(missing, 1 << 20))
            except zlib.error as error:
                raise FileDamagedError(
                    f"{self.where(member.name)}: cannot be decompressed ({error}); copy the file "
                    "anew, or restore an older one",
                    path=self.path,
                    member=member.name,
                ) from None
            if not feed and not piece:
                return
            yield piece
            missing -= len(piece)

    def _refuse_size(self, name: str) -> NoReturn:
        raise FileDamagedError(
            f"{self.where(name)}: has another size than the file's directory claims; copy the "
            "file anew, or restore an older one",
            path=self.path,
            member=name,
        )

    # -- the directory -------------------------------------------------------------------------

    def _pread(self, offset: int, count: int) -> bytes:
        data = os.pread(self.descriptor, count, offset)
        while len(data) < count:  # at most 2 GiB at a time
            more = os.pread(self.descriptor, count - len(data), offset + len(data))
            if not more:
                self.refuse(f"is cut short: it ends before byte {offset + count}")
            data += more
        return data

    def _directory(self) -> dict[str, Member]:
        count, size, offset = self._end()
        if size > _MOST_DIRECTORY_BYTES or size < count * _ENTRY.size:
            self.refuse(f"its directory claims {count} members in {size} bytes")
        directory = self._pread(offset, size)
        members: dict[str, Member] = {}
        position = 0
        for _ in range(count):
            member, position = self._entry(directory, position, offset)
            if member.name in members:
                self.refuse(f"has two members named {member.name!r}")
            members[member.name] = member
        if position != size:
            self.refuse(f"its directory has {size - position} bytes too many")
        placed = sorted(members.values(), key=lambda member: member.header_offset)
        for one, two in zip(placed, placed[1:], strict=False):
            if one.offset + one.stored_bytes > two.header_offset:
                self.refuse(f"members {one.name!r} and {two.name!r} overlap")
        return members

    def _end(self) -> tuple[int, int, int]:
        """Members in, bytes and offset of the directory."""
        tail_at = max(0, self._bytes - _END.size - 0xFFFF)
        tail = self._pread(tail_at, self._bytes - tail_at)
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or place + _END.size > len(tail):
            self.refuse("is no zip archive, or is cut short: its directory is missing")
        _, disk, start_disk, here, count, size, offset, comment = _END.unpack_from(tail, place)
        end = tail_at + place
        if end + _END.size + comment != self._bytes:
            self.refuse("has something behind its end, or is cut short")
        if 0xFFFF in (here, count) or _FULL32 in (size, offset):
            if end < _LOCATOR.size + _END64.size:
                self.refuse("its directory's end is missing")
            mark, disk, end64, _ = _LOCATOR.unpack(self._pread(end - _LOCATOR.size, _LOCATOR.size))
            if mark != b"PK\x06\x07" or end64 > end - _LOCATOR.size - _END64.size:
                self.refuse("its directory's end is damaged")
            record = _END64.unpack(self._pread(end64, _END64.size))
            if record[0] != b"PK\x06\x06":
                self.refuse("its directory's end is damaged")
            disk, start_disk, here, count, size, offset = record[4:]
            end = end64
        if disk or start_disk or here != count or offset + size > end:
            self.refuse("its directory contradicts itself")
        return count, size, offset

    def _entry(self, directory: bytes, position: int, limit: int) -> tuple[Member, int]:
        """The member whose entry begins at ``position``, and where the next one begins."""
        if position + _ENTRY.size > len(directory):
            self.refuse("its directory is cut short")
        fields = _ENTRY.unpack_from(directory, position)
        mark, flags, method, crc, packed, size = (fields[n] for n in (0, 3, 4, 7, 8, 9))
        name_bytes, extra_bytes, comment_bytes, header_offset = (*fields[10:13], fields[16])
        begin = position + _ENTRY.size
        after = begin + name_bytes + extra_bytes + comment_bytes
        if mark != b"PK\x01\x02" or after > len(directory):
            self.refuse("its directory is damaged")
        raw = directory[begin : begin + name_bytes]
        name = self._name(raw, bool(flags & _UTF8))
        extra = directory[begin + name_bytes : begin + name_bytes + extra_bytes]
        size, packed, header_offset = self._wide(extra, size, packed, header_offset)
        if fields[2] & 0xFF > _NEEDED:
            self.refuse(
                f"member {name!r} needs version {fields[2] & 0xFF} of zip, {_NEEDED} is known"
            )
        if flags & _ENCRYPTED or method not in (STORED, DEFLATED):
            self.refuse(f"member {name!r} is encrypted, or packed in an unknown way ({method})")
        if (method == STORED and packed != size) or size > 1040 * packed + 64:
            self.refuse(f"member {name!r} claims {size} bytes in {packed}")
        offset = self._local(raw, name, header_offset, limit, (flags, method, crc, packed, size))
        if offset + packed > limit:
            self.refuse(f"member {name!r} reaches beyond the file's data")
        return Member(name, method, crc, packed, size, header_offset, offset), after

    def _name(self, raw: bytes, utf8: bool) -> str:
        try:
            name = raw.decode("utf-8" if utf8 else "cp437")
        except UnicodeDecodeError:
            self.refuse(f"has a member whose name cannot be decoded, {raw!r}")
        parts = name.split("/")
        odd = "\\" in name or not name.isprintable() or ":" in parts[0]
        if odd or {"", ".", ".."} & set(parts):
            raise FileUnsafeError(
                f"{self.path}: member {name!r} is named like a path out of the archive; a table's "
                "members never are, so nothing of the file was read",
                path=self.path,
                member=name,
            )
        return name

    def _wide(self, extra: bytes, *values: int) -> tuple[int, int, int]:
        """Replace those of (size, packed, offset) that need 64 bits by the extra field's."""
        wide: list[int] = list(values)
        position = 0
        while position + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, position)
            position += 4
            if position + length > len(extra):
                self.refuse(f"extra field {kind:#06x} of {length} bytes is cut short")
            if kind == 1:
                block = extra[position : position + length]
                for index, value in enumerate(wide):
                    if value == _FULL32 and len(block) >= 8:
                        (wide[index],) = struct.unpack_from("<Q", block)
                        block = block[8:]
            position += length
        return wide[0], wide[1], wide[2]

    def _local(
        self, raw: bytes, name: str, at: int, limit: int, stated: tuple[int, int, int, int, int]
    ) -> int:
        """Compare a member's own header with its entry; returns where its data begins."""
        if at + _LOCAL.size > limit:
            self.refuse(f"member {name!r} begins beyond the file's data")
        fields = _LOCAL.unpack(self._pread(at, _LOCAL.size))
        mark, flags, method, crc, packed, size = (fields[n] for n in (0, 2, 3, 6, 7, 8))
        begin = at + _LOCAL.size
        names = self._pread(begin, min(fields[9] + fields[10], limit - begin))
        size, packed, _ = self._wide(names[fields[9] :], size, packed, 0)
        same = mark == b"PK\x03\x04" and names[: fields[9]] == raw and method == stated[1]
        if not flags & _SIZES_FOLLOW:
            same = same and (crc, packed, size) == stated[2:]
        if not same or (flags ^ stated[0]) & (_ENCRYPTED | _SIZES_FOLLOW | _UTF8):
            self.refuse(f"member {name!r} is described differently in the directory and in place")
        return begin + int(fields[9]) + int(fields[10])
