"""The guard against leftovers, seen failing on tests that leave something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

LEAVES = """
import multiprocessing, os, subprocess, sys
from pathlib import Path
KEPT = []

def test_leaves_a_running_child():
    KEPT.append(subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]))

def test_leaves_a_zombie():
    KEPT.append(subprocess.Popen([sys.executable, "-c", ""]))

def test_leaves_a_named_table(unique_name):
    Path(f"/dev/shm/shmtable-guard-{unique_name()}").touch()

def test_leaves_nothing():
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert child.wait() == 0

def test_fails_in_the_table_check(monkeypatch, make_table):
    import shmtable
    monkeypatch.setattr(shmtable.ArrayMemoryTable, "check", lambda self: ["rule: detail"])
    make_table()
"""


def test_the_guard_reports_each_leftover(tmp_path: Path) -> None:
    planted = tmp_path / "test_planted.py"
    planted.write_text(LEAVES)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
    ]
    run = subprocess.run(
        [*command, "-c", str(ROOT / "setup.cfg"), "--rootdir", str(tmp_path), str(planted)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    errors = [line for line in run.stdout.splitlines() if line.startswith("ERROR ")]
    told = "\n".join(errors)
    assert run.returncode == 1, run.stdout + run.stderr
    assert len(errors) == 4, run.stdout + run.stderr
    assert "test_leaves_nothing" not in told
    assert "still running" in run.stdout
    assert "never waited for" in run.stdout
    assert "left named tables in /dev/shm: ['shmtable-guard-" in run.stdout
    assert "rule: detail" in run.stdout
