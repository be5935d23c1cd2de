"""Reserving memory: what is asked, whatever the signals, and errors instead of signals."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from shmtable.errors import (
    SharedMemoryError,
)
from shmtable.shm import header, room
from shmtable.shm.arena import Arena
from tests.shm.helpers import DESCRIPTION, ROOM_BYTES, small_plan

START = header.header_bytes(DESCRIPTION)


def reserved(arena: Arena) -> int:
    return os.fstat(arena._descriptor.fd).st_blocks * 512


def test_reserve_takes_exactly_what_is_asked(make_arena: Callable[..., Arena]) -> None:
    arena = make_arena()
    before = reserved(arena)
    arena.reserve([(START, 3 * 4096), (START + ROOM_BYTES, 5 * 4096), (START, 0)])
    assert reserved(arena) == before + 8 * 4096
    arena.reserve([])
    assert reserved(arena) == before + 8 * 4096


def test_large_spans_are_taken_in_chunks(
    make_arena: Callable[..., Arena], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(room, "CHUNK_BYTES", ROOM_BYTES)
    monkeypatch.setattr(room, "_allocate", lambda fd, start, size: calls.append((start, size)) or 0)
    arena = make_arena()
    calls.clear()
    arena.reserve([(START, 2 * ROOM_BYTES + 4096)])
    assert calls == [
        (START, ROOM_BYTES),
        (START + ROOM_BYTES, ROOM_BYTES),
        (START + 2 * ROOM_BYTES, 4096),
    ]


def test_interrupted_reservations_go_on_in_smaller_chunks(
    make_arena: Callable[..., Arena], monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = make_arena()
    sizes: list[int] = []

    def allocate(fd: int, start: int, size: int) -> int:
        sizes.append(size)
        return errno.EINTR if size > room.SMALLEST_CHUNK_BYTES else 0

    monkeypatch.setattr(room, "_allocate", allocate)
    arena.reserve([(START, 1 << 20)])
    small = room.SMALLEST_CHUNK_BYTES
    assert sizes[-4:] == [small] * 4 and sizes == sorted(sizes, reverse=True)


def test_reserving_under_a_steady_signal() -> None:
    # posix_fallocate is undone when a signal comes, so at full size this would never end.
    arena = Arena.create(lambda factor: (1 << 29, {}))
    ticks = []
    previous = signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        arena.reserve([(8192, 1 << 28)])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert reserved(arena) >= 1 << 28
    assert ticks
    arena.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_an_error_and_not_a_signal(
    make_arena: Callable[..., Arena], monkeypatch: pytest.MonkeyPatch, code: int, unique_name
) -> None:
    arena = make_arena(name=unique_name())
    monkeypatch.setattr(room, "_allocate", lambda *_: code)
    with pytest.raises(
        SharedMemoryError, match="8192 bytes are needed, its file system has"
    ) as info:
        arena.reserve([(START, 8192)])
    assert info.value.asked_bytes == 8192 and info.value.free_bytes > 0
    assert "directory=" in str(info.value) and "/dev/shm" in str(info.value)


def test_a_full_file_system_is_noticed_before_anything_is_taken(
    make_arena: Callable[..., Arena], monkeypatch: pytest.MonkeyPatch, unique_name
) -> None:
    arena = make_arena(name=unique_name())
    before = reserved(arena)
    full = SimpleNamespace(f_blocks=100, f_bavail=3, f_frsize=4096)
    monkeypatch.setattr(os, "fstatvfs", lambda fd: full)
    with pytest.raises(SharedMemoryError, match="its file system has 12288 left"):
        arena.reserve([(START, 8192), (START + 8192, 8192)])
    assert reserved(arena) == before
    arena.reserve([(START, 12288)])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_really_full_file_system(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "x", str(small)], timeout=60)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        arena = Arena.create(small_plan, name="t", directory=str(small))
        with pytest.raises(SharedMemoryError, match="put the table on a larger disk"):
            arena.reserve([(START, 2 * ROOM_BYTES)])
        arena.reserve([(START, ROOM_BYTES // 2)])
        arena.memory[START : START + ROOM_BYTES // 2] = 1
        arena.close()
        del arena
        gc.collect()
    finally:
        subprocess.run(["umount", str(small)], check=True, timeout=60)
