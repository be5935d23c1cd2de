"""No memory, no disk: an error, a table that is as it was, and never a signal."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from shmtable import ArrayMemoryTable, SharedMemoryError
from tests.exhaustion.fill import Filled, add, fill
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
T = TypeVar("T")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount and limit")


def run(*command: str) -> bool:
    """Whether a command worked."""
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


@contextmanager
def mounted(folder: Path, *what: str) -> Iterator[Path]:
    """A file system of its own, or the test is skipped."""
    folder.mkdir()
    if not run("mount", *what, str(folder)):
        pytest.skip(f"mount {' '.join(what)} is not permitted here")
    try:
        yield folder
    finally:
        assert run("umount", str(folder))


def in_a_child(function: Callable[..., T], *arguments: Any) -> T:
    """What a function returns in a process of its own: a signal would be its exit code."""
    with Crew("fork") as crew:
        crew.add(function, *arguments)
        crew.go()
        result: T = crew.results()[0]
    return result


def assert_refused(found: Filled, least: int, most: int, text: str) -> None:
    assert least <= found.sequences <= most
    assert found.wrong == []
    assert re.search(text, found.text), found.text


FULL = (
    r"t.shmtable: \d+ bytes are needed, its file system has \d+ left; make it larger .*directory="
)


@as_root
def test_a_small_file_system(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=8m", "x") as folder:
        assert_refused(in_a_child(fill, "t", str(folder)), 30, 80, FULL)


@as_root
def test_a_full_disk(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(24 * MIB)
    if not run("mkfs.ext4", "-q", "-O", "^has_journal", str(image)):
        pytest.skip("there is no mkfs.ext4 here")
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as folder:
        assert_refused(in_a_child(fill, "t", str(folder)), 80, 240, FULL)


@as_root
def test_a_small_dev_shm(unique_name: Callable[[], str]) -> None:
    # In a mount namespace of its own, where nobody else sees it.
    script = 'mount -t tmpfs -o size=8m x /dev/shm && exec "$@"'
    command = [sys.executable, "-m", "tests.exhaustion.fill", unique_name()]
    unshared = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if not shutil.which("unshare") or not run(*unshared, "true"):
        pytest.skip("mounting in a namespace is not permitted here")
    result = subprocess.run([*unshared, *command], cwd=ROOT, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr.decode()
    found = json.loads(result.stdout)
    del found["pid"]
    text = (
        r"/dev/shm/.*: \d+ bytes are needed, .* \(for /dev/shm: mount -o remount,size=..., docker"
    )
    assert_refused(Filled(**found), 30, 80, text)


def _create_limited(place: dict[str, str], limit_bytes: int) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    try:
        with content.make(**place, maxlen=1000) as table:
            for identity in range(100):
                table.add_sequence(identity, content.sequence(identity, 20))
            assert table.check() == [] and table.full()
            return f"factor {table._core.arena.factor}"
    except SharedMemoryError as error:
        return str(error)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_limit_on_the_size_of_files(tmp_path: Path, on_disk: bool) -> None:
    place = {"name": "t", "directory": str(tmp_path)} if on_disk else {}
    # Less room to grow, and otherwise a table like any.
    assert re.fullmatch("factor [1248]", in_a_child(_create_limited, place, 3 * MIB))
    (tmp_path / "t.shmtable").unlink(missing_ok=True)
    refused = in_a_child(_create_limited, place, 4096)
    assert re.match(r"\d+ bytes of address space are refused even without room", refused)
    assert list(tmp_path.glob("*.shmtable")) == []


@as_root
def test_no_room_to_create_a_table_in(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=64k", "x") as folder:
        with pytest.raises(SharedMemoryError, match=FULL):
            content.make(name="t", directory=str(folder))
        assert list(folder.glob("*.shmtable")) == []


@as_root
def test_when_there_is_room_again_adding_goes_on(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=8m", "x") as folder:
        (folder / "ballast").write_bytes(b"x" * 6 * MIB)
        first, second = in_a_child(_fill_twice, str(folder))
        assert 0 < first < second


def _fill_twice(folder: str) -> tuple[int, int]:
    with content.make(256, name="t", directory=folder, maxlen=1_000_000) as table:
        first = _fill_up(table)
        os.unlink(f"{folder}/ballast")
        second = _fill_up(table)
        assert table.check() == []
        return first, second


def _fill_up(table: ArrayMemoryTable) -> int:
    try:
        while True:
            add(table, table.stats().sequences)
    except SharedMemoryError:
        return table.stats().sequences


@pytest.fixture
def small_group(unique_name: Callable[[], str]) -> Iterator[Path]:
    """A control group (version 2) that may have 256 MiB."""
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        control = root / "cgroup.subtree_control"
        if control.is_file() and "memory" in control.read_text().split():
            break
    else:
        pytest.skip("no control groups of version 2 with a memory controller here")
    group = root / f"shmtable-{unique_name()}"
    try:
        group.mkdir()
        (group / "memory.max").write_text(str(256 * MIB))
    except OSError as error:
        pytest.skip(f"making a control group is not permitted here ({error})")
    yield group
    group.rmdir()


def _fill_in(group: Path) -> Filled:
    (group / "cgroup.procs").write_text(str(os.getpid()))
    return fill(None, None)


def test_a_control_group(small_group: Path) -> None:
    found = in_a_child(_fill_in, small_group)
    text = f"bytes of shared memory are needed, control group {small_group} has"
    assert_refused(found, 100, 2560, text)
