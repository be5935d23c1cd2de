"""Whether the machine has the memory that is about to be taken.

A RAM-backed file never says "no space": its process is killed instead, later and without a
word. So the room is compared beforehand with what the machine, and every control group this
process lives in, still has. That lowers the risk; it cannot exclude it, since others take
memory at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from shmtable.errors import SharedMemoryError

MARGIN_BYTES = 32 << 20
REMEDY = "make the table smaller, free memory, or keep the table on disk with directory="


def check_budget(count_bytes: int, *, proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> None:
    """Refuse a reservation that would leave less than ``MARGIN_BYTES`` of memory.

    Args:
        count_bytes: bytes about to be reserved.
        proc, cgroup: where the kernel's files lie; arguments for the tests.

    Raises:
        SharedMemoryError: with ``asked_bytes``, ``free_bytes`` and ``limit`` (what refuses).
    """
    for limit, free in _rooms(proc, cgroup):
        if count_bytes > free - MARGIN_BYTES:
            raise SharedMemoryError(
                f"{count_bytes} bytes of shared memory are needed, {limit} has {max(free, 0)} "
                f"left, of which {MARGIN_BYTES} are kept free; {REMEDY}",
                asked_bytes=count_bytes,
                free_bytes=free,
                limit=limit,
            )


def _rooms(proc: str, cgroup: str) -> Iterator[tuple[str, int]]:
    """(what limits, free bytes) of the machine and of every enclosing control group."""
    available = _fields(f"{proc}/meminfo").get("MemAvailable:")
    if available is not None:
        yield "the machine", available * 1024
    for line in _read(f"{proc}/self/cgroup").splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers == "":
            for root in (cgroup, f"{cgroup}/unified"):
                yield from _groups(root, path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            yield from _groups(f"{cgroup}/memory", path, *files)


def _groups(
    root: str, path: str, limit_file: str, usage_file: str, prefix: str
) -> Iterator[tuple[str, int]]:
    """Walk from a group up to the root of its hierarchy; groups we cannot see are skipped."""
    while True:
        folder = f"{root}/{path.strip('/')}".rstrip("/")
        limit, usage = _number(f"{folder}/{limit_file}"), _number(f"{folder}/{usage_file}")
        if limit is not None and usage is not None:
            # Clean page cache counts as used but is given back on demand.
            stat = _fields(f"{folder}/memory.stat")
            cache = sum(stat.get(f"{prefix}{kind}_file", 0) for kind in ("inactive", "active"))
            yield f"control group {folder}", limit - usage + cache
        if path.strip("/") == "":
            return
        path = os.path.dirname(path.rstrip("/"))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max" means no limit


def _fields(path: str) -> dict[str, int]:
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) >= 2 and row[1].isdigit()}
