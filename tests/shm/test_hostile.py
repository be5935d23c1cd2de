"""Files that are not what they should be: each gets a clear error, none is believed or removed."""

from __future__ import annotations

import os
import resource
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shmtable.errors import (
    ArenaDamagedError,
    ArenaError,
    ArenaInUseError,
    ArenaNotFoundError,
    ArenaPermissionError,
    SpecError,
)
from shmtable.shm import places
from shmtable.shm.arena import Arena
from tests.shm.helpers import small_plan


@pytest.fixture(params=["shared memory", "directory"])
def place(
    request: pytest.FixtureRequest, unique_name: Callable[[], str], tmp_path: Path
) -> tuple[str, str | None, Path]:
    """A name, its directory= and the path of its file, in memory and on disk."""
    name = unique_name()
    directory = str(tmp_path) if request.param == "directory" else None
    return name, directory, Path(places.path_of(name, directory))


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def test_missing(place: tuple[str, str | None, Path]) -> None:
    name, directory, path = place
    with pytest.raises(ArenaNotFoundError, match=f"{path} does not exist; create the table first"):
        Arena.attach(name, directory=directory)


def test_missing_folder(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    for act in (
        Arena.attach,
        lambda name, directory: Arena.create(small_plan, name=name, directory=directory),
    ):
        with pytest.raises(ArenaNotFoundError, match="nowhere is not an existing folder; make it"):
            act("x", directory=str(folder))
    assert not folder.exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is cut short: 0 of 4096 header bytes"),
        (b"shmtable" * 8, "is cut short: 64 of 4096 header bytes"),
        (b"\0" * 4096, "was never finished"),
        (b"garbage!" * 4096, "is not a shmtable arena"),
    ],
)
def test_not_a_table(place: tuple[str, str | None, Path], content: bytes, text: str) -> None:
    name, directory, path = place
    write(path, content)
    with pytest.raises(ArenaDamagedError, match=text):
        Arena.attach(name, directory=directory)
    assert path.read_bytes() == content
    path.unlink()


@pytest.mark.parametrize("change", ["truncate", "append"])
def test_another_size(tmp_path: Path, change: str, make_arena: Callable[..., Arena]) -> None:
    make_arena(name="t", directory=str(tmp_path)).close()
    path = tmp_path / "t.shmtable"
    size = path.stat().st_size
    os.truncate(path, size - 4096 if change == "truncate" else size + 4096)
    with pytest.raises(
        ArenaDamagedError,
        match=f"says {size} bytes, has {size - 4096}"
        if change == "truncate"
        else f"says {size} bytes, has {size + 4096}",
    ):
        Arena.attach("t", directory=str(tmp_path))


def test_a_cut_off_description_in_a_sound_size(
    tmp_path: Path, make_arena: Callable[..., Arena]
) -> None:
    make_arena(name="t", directory=str(tmp_path)).close()
    path = tmp_path / "t.shmtable"
    size = path.stat().st_size
    os.truncate(path, 4100)
    os.truncate(path, size)  # now a hole, which must be read without being touched
    with pytest.raises(ArenaDamagedError, match="does not match its checksum"):
        Arena.attach("t", directory=str(tmp_path))


@pytest.mark.parametrize("mode", [0o660, 0o604, 0o640])
def test_open_to_others(
    place: tuple[str, str | None, Path], mode: int, make_arena: Callable[..., Arena]
) -> None:
    name, directory, path = place
    write(path, b"anything", mode)
    with pytest.raises(ArenaPermissionError, match=f"has mode {mode:04o}, so others may touch it"):
        Arena.attach(name, directory=directory)
    with pytest.raises(ArenaPermissionError, match="remove the file, or chmod it"):
        make_arena(name=name, directory=directory)
    assert path.read_bytes() == b"anything"
    path.unlink()


def test_symbolic_link(
    place: tuple[str, str | None, Path], tmp_path: Path, make_arena: Callable[..., Arena]
) -> None:
    name, directory, path = place
    target = tmp_path / "target"
    write(target, b"precious")
    path.symlink_to(target)
    for act in (Arena.attach, make_arena_by_name(make_arena)):
        with pytest.raises(ArenaPermissionError, match="not a regular file"):
            act(name, directory=directory)
    path.unlink()
    assert target.read_bytes() == b"precious"


def make_arena_by_name(make_arena: Callable[..., Arena]) -> Callable[..., Arena]:
    return lambda name, directory: make_arena(name=name, directory=directory)


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket"])
def test_not_a_regular_file(
    place: tuple[str, str | None, Path], kind: str, make_arena: Callable[..., Arena]
) -> None:
    name, directory, path = place
    if kind == "folder":
        path.mkdir(0o700)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)  # opening it would block for ever
    else:
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(path.parent, os.O_RDONLY)
            server.bind(f"/proc/self/fd/{here}/{path.name}")  # paths of sockets are short
            os.close(here)
        path.chmod(0o600)
    for act in (Arena.attach, make_arena_by_name(make_arena)):
        with pytest.raises(ArenaPermissionError, match="not a regular file; choose another name"):
            act(name, directory=directory)
    path.rmdir() if kind == "folder" else path.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_of_another_user(place: tuple[str, str | None, Path]) -> None:
    name, directory, path = place
    write(path, b"anything")
    os.chown(path, 12345, 12345)
    with pytest.raises(ArenaPermissionError, match="belongs to user 12345, this process is user 0"):
        Arena.attach(name, directory=directory)
    path.unlink()


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../x", "a b", "x" * 101, "ü", "-x", None])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(SpecError, match="must be 1 to 100 letters"):
        Arena.attach(name)


def test_the_lock_folder_must_be_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "TEMPORARY", str(tmp_path))
    folder = Path(places.lock_directory())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o770)
    with pytest.raises(ArenaPermissionError, match="mode drwxrwx---.*mode 0700: remove it"):
        places.lock_directory()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ArenaPermissionError, match="mode lrwxrwxrwx"):
        places.lock_directory()


def test_a_busy_name_lock_is_given_up(tmp_path: Path) -> None:
    path = str(tmp_path / "t.shmtable")
    with places.name_lock(path):
        with pytest.raises(
            ArenaError,
            match=rf"t.shmtable: process {os.getpid()} \(.*python.*\) has been creating, attaching "
            r"or removing it for 0.05 s; end that process or try again",
        ):
            with places.name_lock(path, timeout_s=0.05):
                pass


def test_errors_of_opening_are_ours(tmp_path: Path, make_arena: Callable[..., Arena]) -> None:
    make_arena(name="t", directory=str(tmp_path)).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with places.name_lock(str(tmp_path / "t.shmtable")):
        from shmtable.errors import SharedMemoryError
        from shmtable.shm import files

        spare = os.open("/", os.O_RDONLY)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            with pytest.raises(SharedMemoryError, match="Too many open files"):
                files.open_file(str(tmp_path / "t.shmtable"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_taken_name(
    place: tuple[str, str | None, Path], make_arena: Callable[..., Arena]
) -> None:
    name, directory, path = place
    arena = make_arena(name=name, directory=directory)
    with pytest.raises(ArenaInUseError, match=f"{path} (is in use|exists already)"):
        make_arena(name=name, directory=directory)
    assert Arena.attach(name, directory=directory) is arena
    arena.close()
