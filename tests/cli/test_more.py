"""``bench``, ``demo``, ``completion`` and ``report``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.running import ROOT, fill, shmtable


def test_bench_measures_and_tells() -> None:
    found = json.loads(shmtable("bench", "--seconds", "0.05", "--json")[0])
    for what in ("add", "sample", "sample_beside_writer", "copy"):
        assert found[what]["calls"] >= 1 and found[what]["transitions_per_s"] > 0
        assert 0 < found[what]["median_s"] <= found[what]["p99_s"]
    assert found["machine"]["processors"] >= 1


def test_demo_is_handed_its_own_options() -> None:
    out, _ = shmtable("demo", "--help")
    assert "--actors" in out and "exit codes:" in out
    _, err = shmtable("demo", "--actors", "none", code=2)
    assert "--actors" in err


def test_completion_without_shtab_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['shtab'] = None; from shmtable.cli import main; "
        "sys.exit(main(['completion', 'bash']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.endswith("pip install 'shmtable[cli]'\n")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_options_and_tables(shell, unique_name, make_table) -> None:
    pytest.importorskip("shtab")
    script, _ = shmtable("completion", shell)
    assert "stat" in script and "--interval" in script.replace("\\", "")
    if shell != "bash":
        return
    name = unique_name()
    make_table(name=name)

    def offered(*words: str) -> list[str]:
        ask = (
            f"{script}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
            '_shmtable 2>/dev/null || _shtab_shmtable; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return subprocess.run(
            ["bash", "-c", ask], capture_output=True, text=True, timeout=60
        ).stdout.split()

    assert "stat" in offered("shmtable", "st")
    assert name in offered("shmtable", "stat", name[:4])


def test_report_is_written_where_asked(make_table, unique_name, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    name = unique_name()
    fill(make_table(name=name))
    path = tmp_path / "report.html"
    out, _ = shmtable("report", name, "-o", str(path), "--watch", "0.2")
    assert out == f"wrote {path}\n" and path.read_text().startswith("<!DOCTYPE html>")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    _, err = shmtable("report", name, "-o", str(tmp_path / "no" / "x.html"), code=1)
    assert err.startswith("shmtable: ") and "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_error(make_table) -> None:
    fill(make_table())
    command = f"{sys.executable} -m shmtable ls --json | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.stderr == "" and ended.returncode in (0, 1)
