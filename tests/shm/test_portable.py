"""The ways for systems without Linux's own calls, taken on Linux."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shmtable.shm import clib, files, room
from shmtable.shm.address import Address
from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from tests.multiprocess.recipe import Crew
from tests.shm.helpers import FIRST, SECOND, Parcel, count_up, counting_guard

BARE = """
import ctypes, os, sys
for name in ("memfd_create", "MFD_CLOEXEC", "MFD_ALLOW_SEALING", "posix_fallocate", "pidfd_open"):
    delattr(os, name)
import fcntl
for name in [name for name in vars(fcntl) if "SEAL" in name]:
    delattr(fcntl, name)
class Nothing:
    def __init__(self, *_, **__): pass
    def __getitem__(self, name): raise AttributeError(name)
import torch, filelock, multiprocessing.context  # as they are
sys.platform = "darwin"
ctypes.CDLL = ctypes.PyDLL = Nothing
from shmtable.shm import arena, budget, files, futex, guard, lock, process
from tests.shm.helpers import count_up, counting_guard, small_plan
assert not lock.robust_available() and futex.futex_number() is None
for options in ({}, {"name": sys.argv[1]}, {"name": "t", "directory": sys.argv[2]}):
    made = arena.Arena.create(small_plan, lock="portable", **options)
    assert made.path and not made.path.startswith("/dev/shm"), made.path
    made.reserve([(8192, 1 << 18)])
    assert os.stat(made.path).st_blocks * 512 >= 1 << 18
    section = counting_guard(made)
    for _ in range(10):
        section.run(count_up, made.words)
    child = os.fork()
    if child == 0:
        again = arena.Arena.open(made.address())
        section.run(count_up, made.words)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert made.words[100] == made.words[101] == 11
    assert arena.Arena.open(made.address()) is made
    made.close()
    section.run(section.bell.ring_locked)
    made.close()
    assert os.path.exists(made.path) == ("directory" in options), made.path
print("portable")
"""


def test_without_any_of_linux(unique_name: Callable[[], str], tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", BARE, unique_name(), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, timeout=120, cwd=root)
    assert result.stdout == b"portable\n", result.stderr.decode()


def count(parcel: Parcel, rounds: int) -> None:
    guard = counting_guard(parcel.arena)
    for _ in range(rounds):
        guard.run(count_up, parcel.arena.words)


def open_and_count(inherited: Arena, address: Address) -> None:
    inherited.close()
    arena = Arena.open(address)
    if arena is inherited:
        raise AssertionError("not opened again")
    count(Parcel(arena), 1)


@pytest.mark.parametrize("sibling", [False, True])
def test_portable_locks_in_a_file_beside(
    sibling: bool,
    make_arena: Callable[..., Arena],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "SIBLING_LOCKS", sibling)
    arena = make_arena(name="t", directory=str(tmp_path), lock="portable")
    with Crew("fork") as crew:
        for _ in range(3):
            crew.add(count, Parcel(arena), 300)
        crew.go()
        crew.results()
    assert arena.words[FIRST] == arena.words[SECOND] == 900
    Guard(arena, "table", int).run(int)
    assert (tmp_path / "t.shmtable.mutex").exists() is sibling


def test_a_random_name_instead_of_none(
    make_arena: Callable[..., Arena], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(38, "not in this sandbox")

    monkeypatch.setattr(os, "memfd_create", refuse)
    arena = make_arena()
    assert arena.path is not None and ".anonymous-" in arena.path and arena.name is None
    assert os.path.exists(arena.path)
    by_path = dataclasses.replace(arena.address(), holders=())
    with Crew("fork") as crew:
        crew.add(open_and_count, arena, by_path)
        crew.go()
        crew.results()
    assert arena.words[FIRST] == 1
    arena.close()
    assert not os.path.exists(arena.path)


@pytest.mark.parametrize("way", ["os", "zeros"])
def test_reserving_without_the_c_librarys_call(
    way: str, make_arena: Callable[..., Arena], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clib, "function", lambda *_, **__: None)
    if way == "zeros":
        monkeypatch.delattr(os, "posix_fallocate")
    arena = make_arena(lock="portable")
    before = os.fstat(arena._descriptor.fd).st_blocks
    arena.memory[8192 + 5000] = 3  # reserved by being touched: it must survive
    arena.reserve([(8192, 3 << 18)])
    assert (os.fstat(arena._descriptor.fd).st_blocks - before) * 512 == 3 << 18
    assert arena.memory[8192 : 8192 + (3 << 18)].sum() == 3
    assert arena.memory[8192 + 5000] == 3


def test_a_missing_symbol_is_none_and_not_an_error() -> None:
    assert clib.function("no_such_function") is None
    assert room.reserve(-1, [], torch.empty(0), [], in_memory=True, where="nowhere") is None
