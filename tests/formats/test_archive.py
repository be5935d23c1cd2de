"""Archives: what is written is read by others, and what others damage is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmtable import FileDamagedError, FileMissingError, FileUnsafeError
from shmtable.formats.archive import Archive
from shmtable.formats.archive_writer import ArchiveWriter
from shmtable.formats.crc import joined


def write(path: Path) -> Path:
    """Two members side by side with holes behind them, and a small one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    out = ArchiveWriter(descriptor)
    one, two = out.member("one", 1000), out.member("twö/2", 5000)
    for number in range(5):
        one.append(bytes([number]) * 100)
        two.append(bytes([number]) * 7)
    out.add("three", b"three")
    out.finish(first=("three",))
    os.close(descriptor)
    return path


EXPECTED = {
    "three": b"three",
    "one": b"".join(bytes([n]) * 100 for n in range(5)),
    "twö/2": b"".join(bytes([n]) * 7 for n in range(5)),
}


def read(path: Path) -> dict[str, bytes]:
    with Archive(str(path)) as archive:
        return {name: archive.read(name, 10_000) for name in archive.members}


def test_others_read_what_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == EXPECTED
        assert archive.namelist()[0] == "three"
    unzip = shutil.which("unzip")
    if unzip:
        run = subprocess.run([unzip, "-t", str(path)], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
    assert read(path) == EXPECTED


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_others_write_is_read(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        for name, data in EXPECTED.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
        archive.comment = b"a comment"
    assert read(tmp_path / "a.zip") == EXPECTED


def test_members_with_sizes_behind_them(tmp_path: Path) -> None:
    with open(tmp_path / "a.zip", "wb") as file:
        file.seekable = lambda: False  # type: ignore[method-assign]
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("one", b"1" * 50)
    assert read(tmp_path / "a.zip") == {"one": b"1" * 50}


def test_cut_short_anywhere(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.zip").read_bytes()
    for length in range(0, len(whole), 61):
        (tmp_path / "b.zip").write_bytes(whole[:length])
        with pytest.raises(FileDamagedError, match="b.zip"):
            read(tmp_path / "b.zip")


def test_a_changed_byte_of_content_is_found(tmp_path: Path) -> None:
    whole = bytearray(write(tmp_path / "a.zip").read_bytes())
    whole[whole.index(bytes([3]) * 100) + 50] ^= 1
    (tmp_path / "a.zip").write_bytes(whole)
    with pytest.raises(FileDamagedError, match="member 'one'.*checksum"):
        read(tmp_path / "a.zip")


def test_a_zip_of_a_later_version(tmp_path: Path) -> None:
    path = write(tmp_path / "file.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 63
    path.write_bytes(data)
    with pytest.raises(FileDamagedError, match="needs version 63 of zip, 45 is known"):
        read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match="no such file") as caught:
        Archive(str(tmp_path / "a.zip"))
    assert isinstance(caught.value, FileNotFoundError)


def test_something_else_than_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(FileDamagedError, match="no regular file"):
        Archive(str(tmp_path / "a.zip"))


@pytest.mark.parametrize(
    "name", ["../a", "/etc/passwd", "a/../b", "a\\b", "C:/x", "a//b", "./a", "a/", "a\nb"]
)
def test_names_that_are_paths(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(FileUnsafeError, match="path out of the archive"):
        read(tmp_path / "a.zip")


def test_two_members_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("one", b"y")
    with pytest.raises(FileDamagedError, match="two members named 'one'"):
        read(tmp_path / "a.zip")


def test_members_that_share_their_data(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", b"x" * 50)
        archive.writestr("two", b"x" * 50)
        archive.infolist()[1].header_offset = archive.infolist()[0].header_offset
    with pytest.raises(FileDamagedError, match="'two' is described differently"):
        read(tmp_path / "a.zip")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one", bytes(10_000_000))
    with Archive(str(tmp_path / "a.zip")) as archive:
        with pytest.raises(FileDamagedError, match="claims 10000000 bytes"):
            archive.read("one", 1000)


def test_a_bomb_is_not_unpacked_into_memory_whatever_the_rest_says(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one", bytes(10_000_000))
        archive.writestr("two", bytes(1_000_000))
    with Archive(str(tmp_path / "a.zip")) as opened:
        assert len(opened.read("two", 1 << 40)) == 1_000_000
        with pytest.raises(FileDamagedError, match="claims 10000000 bytes"):
            opened.read("one", 1 << 40)


def test_a_size_that_compression_cannot_reach(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one", bytes(1000))
        archive.infolist()[0].file_size = 1 << 40
    with pytest.raises(FileDamagedError, match="claims 1099511627776 bytes in"):
        read(tmp_path / "a.zip")


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_are_joined(one: bytes, two: bytes) -> None:
    assert joined(zlib.crc32(one), zlib.crc32(two), len(two)) == zlib.crc32(one + two)
