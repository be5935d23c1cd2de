"""Large pages: had where the system grants them, missed by nobody where it does not."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shmtable.errors import SharedMemoryError
from shmtable.shm import clib, header, huge, room
from shmtable.shm.arena import Arena
from tests.shm.helpers import DESCRIPTION

LARGE = huge.BLOCK_BYTES
START = header.header_bytes(DESCRIPTION)
# Of an arena of 16 blocks: the second up to the eighth.
BLOCKS = [(LARGE, 6 * LARGE)]
SPANS = [(LARGE, 6 * LARGE + 4096)]

pytestmark = pytest.mark.skipif(not huge.may_be(), reason="not Linux with pages of 4 KiB")


def large_plan(factor: int) -> tuple[int, dict[str, Any]]:
    return 16 * LARGE, DESCRIPTION


def large_bytes(arena: Arena) -> int:
    """How much of an arena this process has mapped with large pages."""
    found = 0
    parts = re.compile("^(?=[0-9a-f]+-[0-9a-f]+ )", re.MULTILINE)
    for part in parts.split(Path("/proc/self/smaps").read_text()):
        if part.startswith(f"{arena.memory.data_ptr():x}-"):
            found = 1024 * int(re.findall(r"^ShmemPmdMapped: +(\d+) kB", part, re.MULTILINE)[0])
    return found


@pytest.fixture
def arena(make_arena: Callable[..., Arena]) -> Arena:
    return make_arena(plan=large_plan)


@pytest.fixture
def granted(make_arena: Callable[..., Arena]) -> Arena:
    """An arena with large pages, several of which this busy system may refuse for the moment."""
    for _ in range(10):
        arena = make_arena(plan=large_plan)
        arena.reserve(SPANS, BLOCKS)
        arena.memory[LARGE : 7 * LARGE].fill_(1)
        if large_bytes(arena):
            return arena
        arena.close()
    pytest.skip("this system grants no large pages of shared memory")


def test_files_are_mapped_where_large_pages_can_be(make_arena: Callable[..., Arena]) -> None:
    made = [make_arena(plan=large_plan) for _ in range(5)]
    # Another thread may take the gap that was made; nearly always nobody does.
    assert sum(arena.memory.data_ptr() % LARGE == 0 for arena in made) >= 4


def test_no_address_space_is_kept(make_arena: Callable[..., Arena]) -> None:
    def mapped() -> int:
        found = re.findall(r"^VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
        return 1024 * int(found[0])

    make_arena(plan=large_plan)
    kept = []
    for _ in range(3):  # another thread may map something of its own, once
        before = mapped()
        for _ in range(20):
            make_arena(plan=large_plan)
        kept.append(mapped() - before - 20 * 16 * LARGE)
    assert min(kept) <= 10 * LARGE


def test_complete_blocks_are_large_pages(granted: Arena) -> None:
    assert large_bytes(granted) % LARGE == 0
    assert granted.memory[LARGE : 7 * LARGE].eq(1).all()
    assert not granted.memory[7 * LARGE : 7 * LARGE + 4096].any()


def test_what_is_in_a_block_stays_while_others_write(arena: Arena) -> None:
    half = LARGE + LARGE // 2
    arena.reserve([(LARGE, LARGE // 2)])
    rows = arena.memory[LARGE:half].view(torch.int64)
    stop = threading.Event()
    rounds = 0

    def count() -> None:
        nonlocal rounds
        while not stop.is_set():
            rows.add_(1)
            rounds += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        while rounds < 10:
            time.sleep(0.001)
        arena.reserve([(half, 5 * LARGE + LARGE // 2)], BLOCKS)
        seen = rounds
        while rounds < seen + 10:
            time.sleep(0.001)
    finally:
        stop.set()
        thread.join()
    assert rows.eq(rounds).all()
    assert not arena.memory[half : 7 * LARGE].any()


@pytest.mark.parametrize("refusal", ["missing", "small", "refused", "slow", "unaligned"])
def test_pages_stay_small_where_large_ones_cannot_be(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    calls = []

    def refuse(*given: Any) -> int:
        calls.append(given)
        return -1 if refusal == "refused" else 0

    found = None if refusal == "missing" else refuse
    monkeypatch.setattr(clib, "function", lambda name, *_, **__: found if "adv" in name else None)
    memory = arena.memory
    if refusal == "small":
        monkeypatch.setattr(huge, "may_be", lambda: False)
    elif refusal == "slow":
        monkeypatch.setattr(huge, "_SLOW_BLOCK_S", 0.0)
    elif refusal == "unaligned":
        memory = memory[4096:]
    monkeypatch.setattr(huge, "_ONE_CALL_BYTES", 2 * LARGE)
    monkeypatch.setattr(huge.ctypes, "get_errno", lambda: 12)
    fd = arena._descriptor.fd
    room.reserve(fd, SPANS, memory, BLOCKS, in_memory=True, where="here")
    # Refused or slow once, it is not asked for again.
    assert len(calls) == (1 if refusal in ("refused", "slow") else 0)
    arena.memory[LARGE : 7 * LARGE].fill_(1)  # no page is missing
    assert large_bytes(arena) == 0


def test_blocks_refused_for_the_moment_do_not_stop_the_others(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    again = lambda *given: calls.append(given) or -1  # noqa: E731
    monkeypatch.setattr(clib, "function", lambda name, *_, **__: again if "adv" in name else None)
    monkeypatch.setattr(huge, "_ONE_CALL_BYTES", 2 * LARGE)
    monkeypatch.setattr(huge.ctypes, "get_errno", lambda: 11)
    huge.take(arena._descriptor.fd, arena.memory, BLOCKS)
    address = arena.memory.data_ptr()
    assert calls == [(address + n * LARGE, 2 * LARGE, 25) for n in (1, 3, 5)]


def test_without_room_the_error_is_the_usual_one(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huge.os, "posix_fallocate", full)
    monkeypatch.setattr(room, "_allocate", lambda *_: 28)
    with pytest.raises(SharedMemoryError, match="bytes are needed"):
        arena.reserve(SPANS, BLOCKS)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_a_disk_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(huge, "take", lambda *given: asked.append(given))
    arena = Arena.create(large_plan, name="t", directory=str(tmp_path))
    try:
        arena.reserve(SPANS, BLOCKS)
    finally:
        arena.close()
    assert asked == []
