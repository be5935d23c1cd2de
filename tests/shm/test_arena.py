"""One arena in one process: mapping, references, address space, failing creation."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shmtable.errors import (
    ArenaNotFoundError,
    CapacityError,
    SharedMemoryError,
    SpecError,
)
from shmtable.shm import files, header, process, room
from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from tests.shm.helpers import DESCRIPTION, ROOM_BYTES, small_plan

START = header.header_bytes(DESCRIPTION)


def test_a_new_arena(make_arena: Callable[..., Arena], lock_kind: str) -> None:
    arena = make_arena(lock=lock_kind)
    assert arena.memory.is_shared() and arena.memory.dtype == torch.uint8
    assert arena.memory.numel() == arena.total_bytes == START + 16 * ROOM_BYTES
    assert len(arena.words) == 512 and arena.words.format == "q"
    assert (arena.lock_kind, arena.factor, arena.json) == (lock_kind, 16, DESCRIPTION)
    assert (arena.path, arena.name, arena.directory) == (None, None, None)
    assert arena.creator == process.current() and not arena.first and not arena.closed
    assert 0 < arena.id < 1 << 128
    assert not any(arena.words[header.FIRST_FREE :])


def test_ids_differ(make_arena: Callable[..., Arena]) -> None:
    assert make_arena().id != make_arena().id


def test_words_and_memory_are_the_same(make_arena: Callable[..., Arena]) -> None:
    arena = make_arena()
    arena.words[200] = -2
    assert arena.memory[1600:1608].view(torch.int64).item() == -2


def test_the_file_is_sparse(make_arena: Callable[..., Arena]) -> None:
    def plan(factor: int) -> tuple[int, dict[str, int]]:
        return factor << 37, {}

    arena = make_arena(plan=plan)
    assert arena.total_bytes == 1 << 41
    status = os.fstat(arena._descriptor.fd)
    assert status.st_blocks * 512 <= 1 << 16


def test_it_is_kept_out_of_core_files(make_arena: Callable[..., Arena]) -> None:
    arena = make_arena()
    begin = f"{arena.memory.data_ptr():x}-"
    text = Path("/proc/self/smaps").read_text()
    flags = next(line for line in text[text.index(begin) :].splitlines() if "VmFlags" in line)
    assert " dd" in flags


def test_references_are_counted(make_arena: Callable[..., Arena], unique_name) -> None:
    name = unique_name()
    arena = make_arena(name=name)
    assert Arena.attach(name) is arena
    assert Arena.open(arena.address()) is arena
    for closed in (False, False, True, True):
        arena.close()
        assert arena.closed is closed
    with pytest.raises(ArenaNotFoundError):
        Arena.attach(name)


def test_one_descriptor_and_no_growth(
    make_arena: Callable[..., Arena], opened: Callable[[], int], unique_name, lock_kind: str
) -> None:
    for options in ({}, {"name": unique_name()}):
        for _ in range(3):
            arena = make_arena(lock=lock_kind, **options)
            assert opened() == 1
            Arena.open(arena.address()).close()
            if arena.name:
                Arena.attach(arena.name).close()
            guard = Guard(arena, "table", int)
            guard.run(int)
            arena.reserve([(START, 4096)])
            assert opened() == 1
            arena.close()
            del guard, arena
    gc.collect()
    assert opened() == 0


def test_memory_outlives_close(make_arena: Callable[..., Arena], lock_kind: str) -> None:
    arena = make_arena(lock=lock_kind)
    guard = Guard(arena, "table", int)
    arena.reserve([(START, 4096)])
    inside, closed = threading.Event(), threading.Event()
    seen = []

    def section() -> None:
        view = arena.memory[START : START + 4096]
        view.fill_(7)
        inside.set()
        assert closed.wait(30)
        seen.append(int(view.sum()))
        arena.words[300] = 1

    thread = threading.Thread(target=guard.run, args=(section,))
    thread.start()
    assert inside.wait(30)
    arena.close()
    closed.set()
    thread.join(30)
    assert seen == [7 * 4096]
    assert guard.run(int) == 0  # the lock was given back, in memory that is still there


def test_a_second_table_on_a_file_whose_lock_lives_on(tmp_path: Path, make_arena) -> None:
    # The record lock must survive the old guard's end: one descriptor per file and process.
    options = {"name": "t", "directory": str(tmp_path)}
    arena = make_arena(lock="portable", **options)
    old = Guard(arena, "table", int)
    arena.close()
    again = Arena.attach(**options)
    assert again is not arena and not again.first
    new = Guard(again, "table", int)

    def section() -> bool:
        nonlocal old
        del old
        gc.collect()
        return locked_for_others(again)

    assert new.run(section)
    assert not locked_for_others(again)
    again.close()


def locked_for_others(arena: Arena) -> bool:
    """Whether another process finds the byte of the portable lock taken."""
    code = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        f"fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, {header.TABLE_MUTEX * 8})\n"
    )
    command = [sys.executable, "-c", code, str(arena.path)]
    return b"BlockingIOError" in subprocess.run(command, capture_output=True, timeout=60).stderr


# -- address space -------------------------------------------------------------------------------


def test_the_address_space_is_halved_until_it_is_granted(
    make_arena: Callable[..., Arena], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = room.map_file, []

    def map_file(fd: int, total_bytes: int) -> torch.Tensor:
        asked.append(total_bytes)
        if total_bytes > 5 * ROOM_BYTES:
            raise SharedMemoryError("refused")
        return real(fd, total_bytes)

    monkeypatch.setattr(room, "map_file", map_file)
    arena = make_arena()
    assert [round(total / ROOM_BYTES) for total in asked] == [16, 8, 4]
    assert arena.factor == arena.words[header.FACTOR] == 4
    assert os.fstat(arena._descriptor.fd).st_size == arena.total_bytes == START + 4 * ROOM_BYTES


def test_a_real_limit_on_address_space() -> None:
    code = """
import resource
from shmtable.shm.arena import Arena
from shmtable.errors import SharedMemoryError
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), -1))
arena = Arena.create(lambda factor: (factor << 30, {}))
print(arena.factor)
try:
    Arena.create(lambda factor: (factor << 40, {}))
except SharedMemoryError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    factor, message = result.stdout.decode().splitlines()
    assert factor == "2"
    assert f"{1 << 40} bytes of address space are refused even without room to grow" in message
    assert "directory=" in message


def test_a_plan_without_room_for_the_header() -> None:
    with pytest.raises(CapacityError, match="cannot hold its header of 8192"):
        Arena.create(lambda factor: (4096, {}))


def test_the_size_of_a_nameless_file_is_sealed(make_arena: Callable[..., Arena]) -> None:
    arena = make_arena()
    with pytest.raises(PermissionError):
        os.ftruncate(arena._descriptor.fd, 4096)


# -- failing creation ----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["plan", "prepare", "seal"])
@pytest.mark.parametrize("named", [False, True])
def test_a_failed_creation_leaves_nothing(
    where: str, named: bool, unique_name, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique_name() if named else None

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    if where == "seal":
        monkeypatch.setattr(files, "seal_size", fail)
    with pytest.raises(KeyboardInterrupt):
        Arena.create(
            fail if where == "plan" else small_plan,  # type: ignore[arg-type]
            name=name,
            prepare=fail if where == "prepare" else None,
        )
    gc.collect()
    assert opened() == 0
    if name:
        with pytest.raises(ArenaNotFoundError):
            Arena.attach(name)


def test_prepare_comes_before_anybody_can_attach(unique_name, make_arena) -> None:
    seen = []
    arena = make_arena(
        name=unique_name(), prepare=lambda arena: seen.append(arena.words[header.MAGIC])
    )
    assert seen == [0]
    assert arena.words[header.MAGIC] == header.MAGIC_VALUE


def test_options_that_cannot_be() -> None:
    with pytest.raises(SpecError, match="lock='soft' must be 'robust' or 'portable'"):
        Arena.create(small_plan, lock="soft")
    with pytest.raises(SpecError, match="needs a name for the table's file; pass name="):
        Arena.create(small_plan, directory="anywhere")
    with pytest.raises(SpecError, match="is not an arena's address"):
        Arena.open("replay")
