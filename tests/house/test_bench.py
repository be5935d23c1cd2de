"""The measurements run, and are no tests themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_bench_measures_and_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.bench", "--rounds", "3"]
    run = subprocess.run(
        [*command, "--transitions", "8000", "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    figures = json.loads((tmp_path / "bench-cpu.json").read_text())
    names = [timing["name"] for timing in figures["timings"]]
    assert names == ["sample(256, 1)", "sample(64, 32)", "add_sequence of 200 steps"]
    assert all(
        0 < timing[key] < 1e7
        for timing in figures["timings"]
        for key in ("median_us", "p99_us", "copy_median_us", "copy_p99_us", "factor")
    )
    # (17 + 17 next + 6 + 1) floats and one bool, for each of 256 transitions.
    assert figures["timings"][0]["moved_bytes"] == 256 * (41 * 4 + 1)
    assert figures["timings"][2]["moved_bytes"] == (201 * 17 + 200 * 6 + 200) * 4
    for name in names:
        assert f"| {name} |" in run.stdout
    assert (tmp_path / "bench-cpu.md").read_text() in run.stdout


def test_what_a_transition_takes_is_measured() -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.bench.memory"]
    run = subprocess.run(
        [*command, "--transitions", "6000", "--times", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split("|")[1:-1] for line in run.stdout.splitlines() if line.startswith("| ")]
    frames = {name.strip(): float(number) for name, _, number in rows[1:] if "-" not in number}
    assert len(frames) == 7
    assert all(1 < frames[name] < 2 for name in frames if not name.startswith("("))


def test_files_are_measured_too(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.bench", "--files", "--rounds", "1"]
    run = subprocess.run(
        [*command, "--transitions", "4000", "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    figures = json.loads((tmp_path / "bench-files.json").read_text())
    assert [timing["name"].split(",")[0] for timing in figures["timings"]] == [
        "store",
        "store",
        "restore",
    ]
    assert {timing["moved_bytes"] for timing in figures["timings"]} == {
        20 * (201 * 17 + 200 * 6 + 200) * 4
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bench-files.json",
        "bench-files.md",
    ]


def test_the_bench_is_not_collected() -> None:
    assert not list((ROOT / "tests" / "bench").rglob("test_*.py"))
