"""The first 4096 bytes of an arena: 512 words of int64, and what makes them believable.

Words 0 to 63 are laid out here; the words from ``FIRST_FREE`` on belong to the index.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from shmtable.errors import ArenaDamagedError, ArenaError, ArenaVersionError, SpecError
from shmtable.shm import process

HEADER_BYTES = 4096
WORDS = HEADER_BYTES // 8
FORMAT_VERSION = 3
# "shmtable" read as a little-endian int64: a machine of the other byte order refuses the file.
MAGIC_VALUE = int.from_bytes(b"shmtable", "little")
FACTORS = (16, 8, 4, 2, 1)
LOCK_KINDS = {"robust": 1, "portable": 2}
LOCK_NAMES = {code: name for name, code in LOCK_KINDS.items()}
MAX_JSON_BYTES = 64 << 20

# Constant after creation. MAGIC is stored last: without it, creation was cut off.
MAGIC = 0
VERSION = 1
ID_LOW = 2
ID_HIGH = 3
TOTAL_BYTES = 4
JSON_OFFSET = 5
JSON_BYTES = 6
JSON_CRC = 7
LOCK_KIND = 8
FACTOR = 9
CREATOR_PID = 10
CREATOR_START = 11
CREATOR_FD = 12
# Rewritten by the first process that attaches to a file nobody else uses.
PID_NAMESPACE = 13
BOOT_ID = 14
# Of a file on disk: 1 when all of it is there and nobody uses it; see ``durable``.
CLEAN = 15

# Touched only by the C library. 64 bytes each, on cache lines of their own.
TABLE_MUTEX = 16
GROW_MUTEX = 24

# Two 32-bit halves: the word that waiters sleep on, and a hint that there may be some.
BELL = 32
# The holder's note about itself, for messages only, and the flag that a section is unfinished.
TABLE_NOTE_PID = 33
TABLE_NOTE_TID = 34
TABLE_NOTE_SINCE_NS = 35
DIRTY = 36
# How often somebody found a lock taken, and how long they waited until they had it, in all.
TABLE_WAITS = 37
TABLE_WAITED_NS = 38
GROW_NOTE_PID = 40
GROW_NOTE_TID = 41
GROW_NOTE_SINCE_NS = 42
GROW_DIRTY = 43
GROW_WAITS = 44
GROW_WAITED_NS = 45
FIRST_FREE = 64


class LockWords(NamedTuple):
    """Where the words of one lock lie: mutex area, holder note, dirty flag, counts of waits."""

    mutex: int
    note_pid: int
    note_tid: int
    note_since_ns: int
    dirty: int
    waits: int
    waited_ns: int


LOCKS = {
    "table": LockWords(
        TABLE_MUTEX,
        TABLE_NOTE_PID,
        TABLE_NOTE_TID,
        TABLE_NOTE_SINCE_NS,
        DIRTY,
        TABLE_WAITS,
        TABLE_WAITED_NS,
    ),
    "grow": LockWords(
        GROW_MUTEX,
        GROW_NOTE_PID,
        GROW_NOTE_TID,
        GROW_NOTE_SINCE_NS,
        GROW_DIRTY,
        GROW_WAITS,
        GROW_WAITED_NS,
    ),
}


def encode_json(json_object: Mapping[str, Any]) -> bytes:
    """The UTF-8 text that is stored behind the header."""
    text = json.dumps(json_object, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    if len(text) > MAX_JSON_BYTES:
        raise SpecError(
            f"the table's description takes {len(text)} bytes of JSON, "
            f"the header holds at most {MAX_JSON_BYTES}; use fewer or shorter specs",
            json_bytes=len(text),
        )
    return text


def header_bytes(json_object: Mapping[str, Any]) -> int:
    """Bytes to leave free at the start of an arena with this description; a multiple of 4096."""
    return -(-(HEADER_BYTES + len(encode_json(json_object))) // 4096) * 4096


def fill(
    words: memoryview,
    *,
    id: int,
    json_text: bytes,
    total_bytes: int,
    lock_kind: str,
    factor: int,
    creator_fd: int,
) -> None:
    """Write the constants of a new arena, made by this process; all but ``MAGIC``."""
    me = process.current()
    words[VERSION] = FORMAT_VERSION
    words[ID_LOW], words[ID_HIGH] = struct.unpack("<qq", id.to_bytes(16, "little"))
    words[TOTAL_BYTES] = total_bytes
    words[JSON_OFFSET] = HEADER_BYTES
    words[JSON_BYTES] = len(json_text)
    words[JSON_CRC] = zlib.crc32(json_text)
    words[LOCK_KIND] = LOCK_KINDS[lock_kind]
    words[FACTOR] = factor
    words[CREATOR_PID], words[CREATOR_START], words[CREATOR_FD] = me.pid, me.start, creator_fd
    words[PID_NAMESPACE] = process.pid_namespace()
    words[BOOT_ID] = process.boot_id()


def restart(words: memoryview) -> None:
    """Forget what the last users of a file nobody uses left here; sections repair first.

    All but ``BOOT_ID``: the caller stores it last.
    """
    for lock in LOCKS.values():
        words[lock.dirty] = 1
        words[lock.note_pid] = words[lock.note_tid] = words[lock.note_since_ns] = 0
    words[BELL] = 0
    words[PID_NAMESPACE] = process.pid_namespace()


class Header(NamedTuple):
    """A checked header.

    Attributes:
        words: the first 16 words as they stand in the file.
        id: the arena's 128-bit number.
        lock_kind: "robust" or "portable".
        json: the table's description.
    """

    words: tuple[int, ...]
    id: int
    lock_kind: str
    json: dict[str, Any]


def check_namespace(found: Header, where: str) -> None:
    """Refuse a lock that means nothing to this process.

    Raises:
        ArenaError: the arena is in use in another pid namespace.
    """
    theirs, ours = found.words[PID_NAMESPACE], process.pid_namespace()
    if found.lock_kind == "robust" and theirs != ours:
        raise ArenaError(
            f"{where} is used in pid namespace {theirs}, this process is in {ours}; its lock names "
            "threads by number, so share the namespace (docker run --pid=...) or create the "
            "table with lock='portable'",
            path=where,
        )


def parse(first: bytes, file_bytes: int, where: str) -> tuple[int, ...]:
    """Check the fixed words of a file's first 4096 bytes.

    Args:
        first: what the file begins with.
        file_bytes: the file's size.
        where: the file, for messages.

    Returns:
        The first 16 words.

    Raises:
        ArenaVersionError: written by another version.
        ArenaDamagedError: anything else that is wrong.
    """
    if len(first) < HEADER_BYTES:
        raise ArenaDamagedError(
            f"{where} is cut short: {len(first)} of {HEADER_BYTES} header bytes; "
            "remove it and create the table again",
            path=where,
        )
    words: tuple[int, ...] = struct.unpack_from("=16q", first)
    if words[MAGIC] != MAGIC_VALUE:
        what = "was never finished" if words[MAGIC] == 0 else "is not a shmtable arena"
        raise ArenaDamagedError(
            f"{where} {what}: its first word is {words[MAGIC]:#x}, not {MAGIC_VALUE:#x}; "
            "remove it or choose another name",
            path=where,
        )
    if words[VERSION] != FORMAT_VERSION:
        raise ArenaVersionError(
            f"{where} is arena format {words[VERSION]}; this shmtable reads {FORMAT_VERSION}: "
            "use the version that wrote it, or create the table again",
            path=where,
            version=words[VERSION],
        )
    json_end = words[JSON_OFFSET] + words[JSON_BYTES]
    rules = (
        (words[TOTAL_BYTES] == file_bytes, f"says {words[TOTAL_BYTES]} bytes, has {file_bytes}"),
        (words[LOCK_KIND] in LOCK_NAMES, f"has lock kind {words[LOCK_KIND]}, known are 1 and 2"),
        (words[FACTOR] in FACTORS, f"has address factor {words[FACTOR]}, known are {FACTORS}"),
        (
            words[JSON_OFFSET] == HEADER_BYTES
            and 2 <= words[JSON_BYTES] <= MAX_JSON_BYTES
            and json_end <= file_bytes,
            f"places its description at bytes {words[JSON_OFFSET]} to {json_end} of {file_bytes}",
        ),
    )
    for holds, complaint in rules:
        if not holds:
            raise ArenaDamagedError(
                f"{where} contradicts itself: it {complaint}; create the table again", path=where
            )
    return words


def parse_json(words: tuple[int, ...], text: bytes, where: str) -> Header:
    """Check the description behind the header.

    Raises:
        ArenaDamagedError: it is cut short, altered, not JSON, or not an object.
    """
    complaint = ""
    value: Any = None
    if len(text) != words[JSON_BYTES]:
        complaint = f"is cut short: {len(text)} of {words[JSON_BYTES]} bytes"
    elif zlib.crc32(text) != words[JSON_CRC]:
        complaint = "does not match its checksum"
    else:
        try:
            value = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            complaint = f"is not JSON ({error})"
        if not complaint and not isinstance(value, dict):
            complaint = f"is a {type(value).__name__}, not an object"
    if complaint:
        raise ArenaDamagedError(
            f"{where}: the table's description {complaint}; create the table again", path=where
        )
    number = int.from_bytes(struct.pack("<qq", words[ID_LOW], words[ID_HIGH]), "little")
    return Header(words, number, LOCK_NAMES[words[LOCK_KIND]], value)
