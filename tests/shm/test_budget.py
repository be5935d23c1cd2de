"""Reservations that the machine or a control group cannot take are refused beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shmtable.errors import SharedMemoryError
from shmtable.shm import budget, room
from shmtable.shm.arena import Arena

MIB = 1 << 20
MARGIN = budget.MARGIN_BYTES


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Callable[[int], None]]:
    """Builds a false /proc and /sys/fs/cgroup and gives the check that looks at them."""

    def make(available: int, groups: str = "", files: dict[str, object] | None = None):  # type: ignore[no-untyped-def]
        proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
        (proc / "self").mkdir(parents=True)
        cgroup.mkdir()
        (proc / "meminfo").write_text(
            f"MemTotal:  99999999 kB\nMemAvailable:  {available // 1024} kB\nHugePages_Total: 0\n"
        )
        (proc / "self" / "cgroup").write_text(groups)
        for name, content in (files or {}).items():
            path = cgroup / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        return lambda count: budget.check_budget(count, proc=str(proc), cgroup=str(cgroup))

    return make


def refused_by(check: Callable[[int], None], free: int, limit: str) -> None:
    """The check lets through what just leaves the margin, and not a byte more."""
    check(free - MARGIN)
    with pytest.raises(SharedMemoryError) as info:
        check(free - MARGIN + 1)
    error = info.value
    assert (error.asked_bytes, error.free_bytes) == (free - MARGIN + 1, free)
    assert limit in error.limit and limit in str(error)
    assert "directory=" in str(error)


def test_the_machine(machine: Callable[..., Callable[[int], None]]) -> None:
    refused_by(machine(500 * MIB), 500 * MIB, "the machine")


def test_a_group_of_the_second_kind(machine: Callable[..., Callable[[int], None]]) -> None:
    files = {"a/b/memory.max": 300 * MIB, "a/b/memory.current": 100 * MIB}
    refused_by(machine(10**12, "0::/a/b\n", files), 200 * MIB, "a/b")


def test_an_enclosing_group(machine: Callable[..., Callable[[int], None]]) -> None:
    files = {
        "a/b/memory.max": "max",
        "a/b/memory.current": 100 * MIB,
        "a/memory.max": 400 * MIB,
        "a/memory.current": 150 * MIB,
    }
    refused_by(machine(10**12, "0::/a/b\n", files), 250 * MIB, "cgroup/a")


def test_clean_file_cache_counts_as_free(machine: Callable[..., Callable[[int], None]]) -> None:
    stat = f"anon 5\ninactive_file {40 * MIB}\nactive_file {20 * MIB}\nshmem {99 * MIB}"
    files = {"memory.max": 300 * MIB, "memory.current": 250 * MIB, "memory.stat": stat}
    refused_by(machine(10**12, "0::/\n", files), 110 * MIB, "control group")


def test_a_group_of_the_first_kind(machine: Callable[..., Callable[[int], None]]) -> None:
    stat = f"inactive_file 1\ntotal_inactive_file {10 * MIB}\ntotal_active_file {5 * MIB}"
    files = {
        "memory/x/memory.limit_in_bytes": 200 * MIB,
        "memory/x/memory.usage_in_bytes": 100 * MIB,
        "memory/x/memory.stat": stat,
        "memory/memory.limit_in_bytes": 9223372036854771712,
        "memory/memory.usage_in_bytes": 100 * MIB,
    }
    check = machine(10**12, "9:name=systemd:/y\n4:cpu,memory:/x\n0::/\n", files)
    refused_by(check, 115 * MIB, "memory/x")


def test_a_group_whose_path_is_not_visible(machine: Callable[..., Callable[[int], None]]) -> None:
    # In a container, the path is the host's, and only its own group is mounted, as the root.
    files = {"memory/memory.limit_in_bytes": 200 * MIB, "memory/memory.usage_in_bytes": 100 * MIB}
    refused_by(machine(10**12, "4:memory:/docker/abc\n", files), 100 * MIB, "memory")


def test_nothing_known_allows_everything(tmp_path: Path) -> None:
    budget.check_budget(1 << 60, proc=str(tmp_path), cgroup=str(tmp_path))


def test_more_than_this_machine_has() -> None:
    with pytest.raises(SharedMemoryError, match="bytes of shared memory are needed, the machine"):
        budget.check_budget(1 << 50)
    budget.check_budget(1)


def test_arenas_ask_it_for_memory_and_not_for_disk(
    make_arena: Callable[..., Arena], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arenas = make_arena(), make_arena(name="t", directory=str(tmp_path))
    asked: list[int] = []
    monkeypatch.setattr(room.budget, "check_budget", asked.append)
    for arena in arenas:
        arena.reserve([(8192, 4096), (16384, 8192)])
    assert asked == [12288]
