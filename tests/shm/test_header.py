"""The header: what is written can be read, and what is damaged is never believed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from shmtable.errors import ArenaDamagedError, ArenaError, ArenaVersionError, SpecError
from shmtable.shm import header
from shmtable.shm.arena import Arena
from tests.shm.helpers import DESCRIPTION


@pytest.fixture
def sound(make_arena: Callable[..., Arena], tmp_path: Path) -> Path:
    """The file of an arena on disk that nobody uses any more."""
    arena = make_arena(name="sound", directory=str(tmp_path))
    arena.close()
    return tmp_path / "sound.shmtable"


def set_word(path: Path, word: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(word * 8)
        file.write(struct.pack("<q", value))


def attach(path: Path) -> Arena:
    arena = Arena.attach(path.name.removesuffix(".shmtable"), directory=str(path.parent))
    arena.close()
    return arena


def test_what_was_written_is_read(sound: Path) -> None:
    arena = attach(sound)
    assert arena.json == DESCRIPTION
    assert arena.total_bytes == sound.stat().st_size
    assert (arena.lock_kind, arena.factor) == ("robust", 16)


def test_the_words_of_the_locks_do_not_overlap() -> None:
    used: list[int] = list(range(16)) + [header.BELL]
    for words in header.LOCKS.values():
        assert words.mutex % 8 == 0  # a cache line of its own
        used += range(words.mutex, words.mutex + 8)
        used += [words.note_pid, words.note_tid, words.note_since_ns, words.dirty]
    assert len(set(used)) == len(used)
    assert max(used) < header.FIRST_FREE


def test_header_bytes_are_whole_pages_that_hold_the_description() -> None:
    for size in (0, 4000, 4096, 5000):
        description = {"text": "ü" * size}
        count = header.header_bytes(description)
        assert count % 4096 == 0
        assert 4096 + len(header.encode_json(description)) <= count


def test_a_huge_description_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "MAX_JSON_BYTES", 100)
    with pytest.raises(SpecError, match="takes 211 bytes of JSON, the header holds at most 100"):
        header.encode_json({"text": "x" * 200})


@pytest.mark.parametrize(
    ("word", "value", "text"),
    [
        (header.MAGIC, 0, "was never finished"),
        (header.MAGIC, 77, "is not a shmtable arena"),
        (header.TOTAL_BYTES, 4096, "contradicts itself: it says 4096 bytes, has"),
        (header.LOCK_KIND, 3, "has lock kind 3"),
        (header.FACTOR, 3, "has address factor 3"),
        (header.JSON_OFFSET, 8192, "places its description at bytes 8192 to"),
        (header.JSON_BYTES, -5, "places its description at bytes 4096 to 4091"),
        (header.JSON_BYTES, 1 << 40, "places its description"),
        (header.JSON_BYTES, 10, "does not match its checksum"),
        (header.JSON_CRC, 1, "does not match its checksum"),
    ],
)
def test_each_damaged_word_is_found(sound: Path, word: int, value: int, text: str) -> None:
    set_word(sound, word, value)
    with pytest.raises(ArenaDamagedError, match=text):
        attach(sound)


def test_another_version_is_not_called_damage(sound: Path) -> None:
    set_word(sound, header.VERSION, 7)
    with pytest.raises(ArenaVersionError, match="is arena format 7; this shmtable reads 3") as info:
        attach(sound)
    assert info.value.version == 7


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(b"[1,2]", "is a list, not an object"), (b"{oops", "is not JSON"), (b"\xff\xff", "not JSON")],
)
def test_a_description_that_is_not_an_object(sound: Path, text: bytes, complaint: str) -> None:
    with sound.open("r+b") as file:
        file.seek(4096)
        file.write(text)
    set_word(sound, header.JSON_BYTES, len(text))
    set_word(sound, header.JSON_CRC, zlib.crc32(text))
    with pytest.raises(ArenaDamagedError, match=complaint):
        attach(sound)


def test_a_deeply_nested_description_is_damage(sound: Path) -> None:
    text = b'{"a":' + b"[" * 100_000
    with sound.open("r+b") as file:
        file.seek(4096)
        file.write(text)
    set_word(sound, header.JSON_BYTES, len(text))
    set_word(sound, header.JSON_CRC, zlib.crc32(text))
    with pytest.raises(ArenaDamagedError, match="is not JSON"):
        attach(sound)


def test_random_words_never_do_more_than_raise(sound: Path) -> None:
    rng = random.Random(5)
    original = sound.read_bytes()[:8192]
    refused = 0
    for _ in range(150):
        damaged = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            value = rng.choice([0, 1, -1, rng.getrandbits(62), 2**63 - 1, -(2**63), 4096])
            struct.pack_into("<q", damaged, rng.randrange(8) * 8, value)
        with sound.open("r+b") as file:
            file.write(damaged)
        try:
            attach(sound)
        except ArenaError:
            refused += 1
    assert refused > 100  # the id words may be anything
