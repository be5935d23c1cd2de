"""Names, their owners, and tables on disk."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shmtable.errors import (
    ArenaError,
    ArenaInUseError,
)
from shmtable.shm import files, header, look, process
from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from tests.shm.helpers import DESCRIPTION, small_plan

START = header.header_bytes(DESCRIPTION)


def test_the_owner_removes_the_name(make_arena: Callable[..., Arena], unique_name) -> None:
    arena = make_arena(name=unique_name())
    assert Path(str(arena.path)).parent == Path("/dev/shm")
    assert Path(str(arena.path)).stat().st_mode & 0o777 == 0o600
    arena.close()
    assert not Path(str(arena.path)).exists()


def test_a_dropped_arena_removes_its_name(unique_name) -> None:
    name = unique_name()
    arena = Arena.create(small_plan, name=name)
    path = Path(str(arena.path))
    del arena
    gc.collect()
    assert not path.exists()


def test_the_owner_does_not_remove_another_ones_file(make_arena, unique_name) -> None:
    arena = make_arena(name=unique_name())
    path = Path(str(arena.path))
    path.unlink()
    path.write_bytes(b"somebody else's")
    arena.close()
    assert path.read_bytes() == b"somebody else's"
    path.unlink()


def test_who_uses_a_name_is_said(make_arena, unique_name, monkeypatch) -> None:
    name = unique_name()
    path = str(make_arena(name=name).path)
    with pytest.raises(ArenaInUseError, match=r"is in use by this process; attach to it, close"):
        make_arena(name=name)
    key = files.key_of(os.lstat(path))
    crowd = {key: [(1, 3), (1, 4), *((2**22 + n, 3) for n in range(5))]}
    monkeypatch.setattr(look, "users", lambda: crowd)
    text = look.users_named(path)
    assert text.startswith("process 1 (") and text.endswith("(command unknown) and 2 more")
    monkeypatch.setattr(look, "users", lambda: {})  # no /proc, or another user's
    with pytest.raises(ArenaInUseError, match="is in use by another process; attach to it"):
        make_arena(name=name)


def test_a_table_on_disk_stays(make_arena: Callable[..., Arena], tmp_path: Path) -> None:
    arena = make_arena(name="t", directory=str(tmp_path))
    arena.reserve([(START, 4096)])
    arena.memory[START] = 9
    arena.words[400] = 123
    arena.words[header.DIRTY] = 0
    number = arena.id
    arena.close()
    with pytest.raises(ArenaInUseError, match="exists already; attach to it, remove the file"):
        make_arena(name="t", directory=str(tmp_path))
    again = Arena.attach("t", directory=str(tmp_path))
    assert again.id == number and again.words[400] == 123 and again.memory[START] == 9
    assert again.first
    assert again.words[header.DIRTY] == again.words[header.GROW_DIRTY] == 1
    again.close()


def test_after_a_restart_of_the_machine(
    make_arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = make_arena(name="t", directory=str(tmp_path))
    arena.words[header.TABLE_MUTEX] = 0x7FFFFFFF  # a lock held by a thread of long ago
    arena.close()
    del arena
    monkeypatch.setattr(process, "boot_id", lambda: 12345)
    again = Arena.attach("t", directory=str(tmp_path))
    assert again.first
    assert again.words[header.BOOT_ID] == 12345
    assert Guard(again, "table", int).run(int, timeout_s=1) == 0
    again.close()


def test_an_unfinished_file_on_disk_is_replaced(make_arena, tmp_path: Path) -> None:
    path = tmp_path / "t.shmtable"
    path.write_bytes(b"\0" * 8192)
    path.chmod(0o600)
    assert make_arena(name="t", directory=str(tmp_path)).creator == process.current()


def test_another_pid_namespace_is_refused(
    make_arena, unique_name, monkeypatch: pytest.MonkeyPatch, lock_kind: str
) -> None:
    name = unique_name()
    arena = make_arena(name=name, lock=lock_kind)
    child = os.fork()
    if child == 0:  # a process of its own, since here it is open already
        status = 9
        try:
            arena.close()
            monkeypatch.setattr(process, "pid_namespace", lambda: 1)
            Arena.attach(name)
            status = 0
        except ArenaError as error:
            status = 5 if "is used in pid namespace" in str(error) else 6
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (5 if lock_kind == "robust" else 0)
