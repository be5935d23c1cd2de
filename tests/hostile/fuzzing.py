"""Damages a table's file and uses what is left of it, in a child that may not die of it."""

from __future__ import annotations

import json
import mmap
import os
import struct
import traceback
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shmtable import ArrayMemoryTable, ShmTableError
from shmtable.index import Layout
from shmtable.index import fields as f
from shmtable.shm import header
from tests.multiprocess import content

NAME = "fuzzed"
#: Regions of which words are changed, and how many words of each.
REGIONS = {
    "slots": 16 * f.SLOT_WORDS,
    "notes": 16 * f.SLOT_WORDS,
    "links": 16 * f.LINK_WORDS,
    "attachments": 64,
    "bins": 512,
    "buckets": 1024,
    "live": 16,
    "free": 16,
    "times_sampled": 16,
    "row_slot": 32,
}
HEADER_WORDS = 140  # those in use, and some behind them
OUTCOMES = ("used", "refused")


class Damage(NamedTuple):
    """One change: ``what`` is "header", "size", "description" or a region."""

    what: str
    place: int
    value: int


@dataclass
class Victim:
    """A sound table's file, to be damaged again and again.

    Attributes:
        folder: where it lies; best in memory, for every attachment is brought to the disk.
        path: of the file.
        layout: of the table.
    """

    folder: str
    path: Path
    layout: Layout
    _sound: bytes
    _size: int

    @classmethod
    def make(cls, folder: str) -> Victim:
        """A table with gaps, and with a sequence that nobody will finish."""
        with content.make(
            4, name=NAME, directory=folder, maxlen=60, max_sequences=12, preallocate=True
        ) as table:
            for identity in range(8):
                table.add_sequence(identity, content.sequence(identity, 3 + identity, width=4))
            for identity in (1, 4):
                table.remove(identity)
            core = table._core
            layout = core.layout
            core.arrays.slots[core.arrays.in_state(f.LIVE)[-1], f.STATE] = f.WRITING
        path = Path(folder) / f"{NAME}.shmtable"
        used = layout.regions["row_slot"]
        with path.open("rb") as file:
            sound = file.read(used.offset + used.bytes)
        return cls(folder, path, layout, sound, path.stat().st_size)

    def damage(self, damages: Sequence[Damage]) -> None:
        """Put the file back to what it was, but for these changes."""
        changed = bytearray(self._sound)
        size = self._size
        for what, place, value in damages:
            if what == "size":
                size = abs(value) % (2 * self._size)
            elif what == "description":
                _describe_anew(changed, place, value)
            elif what == "header":
                struct.pack_into("<q", changed, place % HEADER_WORDS * 8, value)
            elif what == "row_slot":
                place = place % REGIONS[what] * 4
                value = (value + 2**31) % 2**32 - 2**31
                struct.pack_into("<i", changed, self.layout.regions[what].offset + place, value)
            else:
                place = place % REGIONS[what] * 8
                struct.pack_into("<q", changed, self.layout.regions[what].offset + place, value)
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            os.ftruncate(descriptor, self._size)
            os.pwrite(descriptor, changed, 0)
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)


def _describe_anew(changed: bytearray, place: int, value: int) -> None:
    """Change one value of the description, and its checksum with it."""
    count = struct.unpack_from("<q", changed, 8 * header.JSON_BYTES)[0]
    if not 0 < count < len(changed) - header.HEADER_BYTES:
        return
    try:
        description = json.loads(changed[header.HEADER_BYTES :][:count])
    except ValueError:  # damaged twice
        return
    leaves = list(_leaves(description))
    owner, key = leaves[place % len(leaves)]
    strange = [value, str(value), None, [], {}, -1, 1e300, True, owner[key], [owner[key]], "é"]
    owner[key] = strange[value % len(strange)]
    text = json.dumps(description, separators=(",", ":")).encode()
    if header.HEADER_BYTES + len(text) > len(changed):
        return
    changed[header.HEADER_BYTES : header.HEADER_BYTES + len(text)] = text
    struct.pack_into("<q", changed, 8 * header.JSON_BYTES, len(text))
    struct.pack_into("<q", changed, 8 * header.JSON_CRC, zlib.crc32(text))


def _leaves(value: Any) -> Any:
    """(container, key) of everything in a JSON value, containers too."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(entries):
        yield value, key
        if isinstance(item, (dict, list)):
            yield from _leaves(item)


def use(folder: str) -> str:
    """Attach, and do what can be done with a table; what became of it.

    Only errors of ours may come out: anything else is for the caller to see.
    """
    try:
        table = ArrayMemoryTable.attach(NAME, directory=folder)
    except ShmTableError:
        return "refused"
    with table:
        for call in (_look, _sample, _change):
            try:
                call(table)
            except ShmTableError:
                pass
    return "used"


def _look(table: ArrayMemoryTable) -> None:
    table.check()
    table.stats()
    repr(table)
    table.full()
    table._core.company()
    for identity in table.identities().tolist():
        table.sequence(identity)


def _sample(table: ArrayMemoryTable) -> None:
    for steps in (1, 4):
        table.sample(8, steps)


def _change(table: ArrayMemoryTable) -> None:
    for identity in (100, 101, 102):
        table.add_sequence(identity, content.sequence(identity, 9, width=4), timeout_s=0)
    for identity in table.identities().tolist()[:2]:
        table.remove(identity)
    table.resize(table.maxlen)
    table.clear()
    table.add_sequence(103, content.sequence(103, 9, width=4), timeout_s=0)


class Verdict(NamedTuple):
    """What became of a batch.

    Attributes:
        outcomes: how many were used, how many refused.
        wrong: what went wrong, empty for nothing; with the damage that did it.
    """

    outcomes: dict[str, int]
    wrong: str


def try_all(victim: Victim, batch: Sequence[Sequence[Damage]]) -> Verdict:
    """Damage and use the file in each of these ways, in a child."""
    told = np.frombuffer(mmap.mmap(-1, 4096), np.int64)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            for number, damages in enumerate(batch):
                told[0] = number
                victim.damage(damages)
                told[1 + OUTCOMES.index(use(victim.folder))] += 1
            status = 0
        except BaseException:
            os.write(writing, traceback.format_exc()[-3000:].encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        text = file.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    outcomes = dict(zip(OUTCOMES, told[1:3].tolist(), strict=True))
    if code == 0:
        return Verdict(outcomes, "")
    how = f"ended by signal {-code}" if code < 0 else f"raised\n{text}"
    return Verdict(outcomes, f"{list(batch[told[0]])}: {how}")
