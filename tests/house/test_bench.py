"""The measurements run, and are no tests themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.bench import gpu_rows, tables
from tests.bench.aims import aims
from tests.bench.clock import CpuClock
from tests.bench.driver import Company, Driven, Gone, Measured
from tests.bench.part import kept
from tests.bench.peers.base import Case, Setup
from tests.device.places import StandIn

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
    assert names == [
        "sample(256, 1)",
        "sample(64, 32)",
        "add_sequence of 200 steps",
        "append of a step",
    ]
    assert all(
        0 < timing[key] < 1e7
        for timing in figures["timings"]
        for key in ("median_us", "p99_us", "copy_median_us", "copy_p99_us", "factor")
    )
    # (17 + 17 next + 6 + 1) floats and one bool, for each of 256 transitions.
    assert figures["timings"][0]["moved_bytes"] == 256 * (41 * 4 + 1)
    assert figures["timings"][2]["moved_bytes"] == (201 * 17 + 200 * 6 + 200) * 4
    assert figures["timings"][3]["moved_bytes"] == (17 + 6 + 1) * 4
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


def test_what_is_measured_on_a_device_runs_without_one(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\nFigures.\n")
    command = [sys.executable, "-W", "error", "-m", "tests.bench.gpu", "--device", "cpu"]
    for _ in range(2):  # the second one takes the first one's place
        run = subprocess.run(
            [*command, "--output", str(tmp_path), "--page", str(page)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "bench-gpu.json").read_text())
    assert [row["measure"] for row in results["rows"]] == [
        "sample(16, 8) of 64 floats: share of a copy there",
        "sample(256, 1) of 5 columns, µs",
        "sample(256, 1) of 5 columns, µs on the device",
        "loader, batches of 0 MiB: share of a plain copy",
        "steps of 0.2 ms with prefetch beside a batch that is there",
        "sample(64, 32): times as fast as TorchRL, both there",
        "torn windows in 0.3 s, two writers",
    ]
    for row in results["rows"]:
        assert row["value"] is None or row["value"] >= 0
        assert (row["value"] is None) == bool(row["why"])
        assert f"| {row['measure']} |" in run.stdout
    torn = results["rows"][-1]
    assert torn["value"] == 0 and torn["figures"]["samples of 64 windows"] > 0
    text = page.read_text()
    assert text.startswith("# A page\n\nFigures.\n") and text.count("## On a GPU") == 1
    assert "no figures of a GPU" in text
    assert kept(page) in text and kept(tmp_path / "none.md") == ""


def test_a_measure_that_fails_costs_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def loader(_: object) -> None:
        raise RuntimeError("no such kernel")

    names = ["windows", "single_steps", "loader", "learner", "beside_torchrl", "torn"]
    for name in names:
        row = gpu_rows.Row(name, "", 1.0, True)
        monkeypatch.setattr(gpu_rows.Measures, name, lambda _, row=row: row)
    monkeypatch.setattr(gpu_rows.Measures, "loader", loader)
    rows = list(gpu_rows.Measures(StandIn(), CpuClock(), gpu_rows.LEAST).rows())
    assert [row.measure for row in rows] == names
    assert [row.why for row in rows if row.why] == ["failed: RuntimeError('no such kernel')"]
    assert rows[2].value is None and rows[2].reached is None


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
        *["store"] * 3,
        "restore",
        "add_sequence of 200 steps while another process stores",
    ]
    sequence = (201 * 17 + 200 * 6 + 200) * 4
    sizes = [timing["moved_bytes"] for timing in figures["timings"]]
    assert sizes == [20 * sequence] * 4 + [sequence]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bench-files.json",
        "bench-files.md",
    ]


def test_the_bench_is_not_collected() -> None:
    assert not list((ROOT / "tests" / "bench").rglob("test_*.py"))


BESIDE = [sys.executable, "-W", "error", "-m", "tests.bench.beside"]


def _run(*arguments: str) -> str:
    run = subprocess.run(
        [*BESIDE, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_the_bench_runs_beside_peers_that_are_not_there(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere" / "python")
    page = tmp_path / "page.md"
    folder = tmp_path / "output"
    out = _run(
        *("--effort", "least", "--peers", nowhere, "--reverb", nowhere),
        *("--page", str(page), "--output", str(folder), "--note", "A note."),
    )
    written = {path.name for path in folder.iterdir()}
    assert {"bench-beside.md", "bench-beside.json"} <= written
    assert {f"bench-{what}.png" for what in ("processes", "size", "split")} <= written
    text = (folder / "bench-beside.md").read_text()
    assert text in out
    assert text in page.read_text() and "A note." in page.read_text()
    for what in ("processes", "size", "split"):
        assert (tmp_path / "drawings" / f"bench-{what}.svg").stat().st_size > 1000
        assert f"](drawings/bench-{what}.svg)" in page.read_text()
    results = json.loads((folder / "bench-beside.json").read_text())
    for name in ("cpprb", "torchrl", "reverb"):
        assert "not installed" in results["peers"][name]["absent"]
        assert f"- {name}: not measured (not installed" in text
    ours = [record for record in results["one"] if record["peer"] == "shmtable"]
    assert len(ours) == 15
    assert all(0 < record["low"] <= record["high"] for record in ours)
    assert all(record["median"] <= record["p99"] for record in ours)
    (crowd,) = results["crowd"]
    assert crowd["steps_per_s"] > 0 < crowd["samples_per_s"]
    assert crowd["held_share"] > 0
    assert {record["peer"] for record in results["growth"]} == {"shmtable", "plain"}
    assert len(results["split"]) == 3 and all(record["us"] for record in results["split"])
    assert _run("--again", str(folder / "bench-beside.json"), "--output", str(folder)) == "".join(
        line
        for line in out.splitlines(keepends=True)
        if str(page) not in line and str(tmp_path / "drawings") not in line
    )


def test_a_peer_that_cannot_be_loaded_is_told_of() -> None:
    with pytest.raises(Gone, match="ModuleNotFoundError: No module named"):
        Driven("nothing", sys.executable)
    with Company({"nothing": sys.executable}) as company:
        assert "ModuleNotFoundError" in company.about()["nothing"]["absent"]
        assert "ModuleNotFoundError" in company.ask("nothing", {"hello": True})["cannot"]


def test_a_peer_may_be_unable_and_may_die() -> None:
    with Company({"plain": sys.executable}) as company:
        setup = Setup(transitions=1000)
        update = {"case": asdict(Case(setup, "update", 8)), "calls": 1}
        assert company.ask("plain", update) == {"cannot": "keeps no priorities"}
        sample = {"case": asdict(Case(setup, "sample", 8)), "calls": 3}
        assert len(company.ask("plain", sample)["us"]) == 3
        company.present["plain"]._process.kill()
        assert company.ask("plain", sample) == {"cannot": "ended with -9"}
        assert company.about() == {"plain": {"absent": "ended with -9"}}


def _record(peer: str, case: Case, *times: float) -> dict[str, Any]:
    return Measured(peer, case, [list(times)]).figures(ahead=False)


def test_ratios_are_those_of_the_medians() -> None:
    case = Case(Setup(), "sample", 256)
    records = [
        _record("shmtable", case, 10.0, 20.0, 90.0),
        _record("cpprb", case, 50.0),
        _record("torchrl", case, 70.0),
        Measured("reverb", case, cannot="cannot").figures(ahead=False),
        _record("plain", case, 8.0),
    ]
    row = next(line for line in tables.one_process(records).splitlines() if "sample(" in line)
    assert row == "| sample(256, 1) | 2.50 | cpprb | 2.50 | 20.0 | 50.0 | 8.0 | 41 |"
    assert "- Reverb: cannot: sample(256, 1)." in tables.unable(records)
    rows = aims({"one": records, "crowd": [], "growth": []}).splitlines()[2:]
    assert rows == ["| sample(256, 1): times faster than cpprb | 2.50 | 2 or more | yes |"]


def test_ratios_are_of_turns_that_belong_together() -> None:
    case = Case(Setup(), "sample", 256)
    ours = Measured("shmtable", case, [[1.0], [1.0], [2.0]]).figures(ahead=False)
    peer = Measured("cpprb", case, [[4.0], [2.0], [4.0]]).figures(ahead=False)
    assert tables.ratio(peer, ours) == 2.0  # and not 4, which is that of the medians
    assert tables.ratio(peer, None) is None
    assert tables.ratio(peer, {"cannot": "sample"}) is None


def test_a_peer_that_works_ahead_is_taken_at_the_rate_it_keeps_up() -> None:
    measured = Measured("reverb", Case(Setup(), "sample", 256), [[1.0, 1.0, 10.0]])
    assert measured.figures(ahead=True)["typical"] == 4.0
    assert measured.figures(ahead=False)["typical"] == 1.0
