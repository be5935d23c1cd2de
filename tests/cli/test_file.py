"""``shmtable file``: what people and programs are told, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import content as golden

ROOT = Path(__file__).parents[2]
V1, LEGACY = str(golden.FOLDER / "v1.zip"), str(golden.FOLDER / "legacy.zip")
WITHOUT_RICH = (
    "import sys; sys.modules['rich'] = None; from shmtable.cli import main; sys.exit(main())"
)


def shmtable(*arguments: str) -> tuple[int, str, str]:
    """Run the command as a user does: exit code, standard output, standard error."""
    ended = subprocess.run(
        [sys.executable, "-m", "shmtable", "file", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


def at_a_terminal(*command: str) -> tuple[str, str]:
    """Run a command whose standard error is a terminal: standard output and error."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # nobody has the other side open any more
        pass
    finally:
        os.close(ours)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, shown
    return out.decode(), shown.decode()


def damaged(path: Path) -> Path:
    """A copy of the golden file with one bit of a row turned."""
    shutil.copy(V1, path)
    data = bytearray(path.read_bytes())
    _, rows = golden.sequence(0)
    data[data.index(rows["features"].tobytes())] ^= 1
    path.write_bytes(data)
    return path


def test_a_sound_file() -> None:
    code, out, err = shmtable("check", V1)
    assert (code, err) == (0, "")
    assert out == (f"{V1} is sound: V1, 20 sequences with 158 transitions, 5,376 bytes of rows\n")


def test_a_damaged_file_can_be_described_and_is_no_good(tmp_path: Path) -> None:
    path = str(damaged(tmp_path / "t.zip"))
    assert shmtable("info", path)[0] == 0
    for more in ([], ["--json"]):
        code, out, err = shmtable("check", path, *more)
        assert (code, out) == (1, "")
        assert err.startswith(f"shmtable: {path}: member 'features.npy'") and "checksum" in err
        assert err.count("\n") == 1
    target = tmp_path / "new.zip"
    code, out, err = shmtable("convert", path, str(target))
    assert (code, out) == (1, "") and "checksum" in err
    assert not target.exists()


def test_for_programs() -> None:
    code, out, err = shmtable("check", V1, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert json.loads(shmtable("info", "--json", V1)[1]) == found
    assert (found["path"], found["version"], found["maxlen"]) == (V1, "V1", 1000)
    assert (found["sequences"], found["transitions"]) == (20, 158)
    assert found["data_bytes"] == 5376
    assert found["file_bytes"] == os.path.getsize(V1)
    assert found["lengths"] == [
        {"from": 2, "to": 3, "sequences": 2},
        {"from": 4, "to": 7, "sequences": 7},
        {"from": 8, "to": 15, "sequences": 11},
    ]
    assert found["columns"][0] == {
        "name": "features",
        "kind": "Column",
        "dtype": "float32",
        "shape": [3],
        "target_name": None,
    }
    assert len(found["columns"]) == len(golden.columns())


def test_for_people() -> None:
    code, out, err = shmtable("info", LEGACY)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith(f"{LEGACY}: Legacy, 20 sequences with 158 transitions")
    assert "UniformSampleStrategy and FifoEjectionStrategy" in lines[1]
    assert "next_features VirtualColumn float32 (3,) computed from features" in lines
    assert "actions Column int64 () tells a sequence's length" in lines
    assert lines[-4:] == [
        "length sequences",
        f"2 to 3 2 {'#' * 8}",
        f"4 to 7 7 {'#' * 26}",
        f"8 to 15 11 {'#' * 40}",
    ]


def test_legacy_becomes_v1(tmp_path: Path) -> None:
    target = str(tmp_path / "new.zip")
    code, out, err = shmtable("convert", LEGACY, target)
    assert (code, err) == (0, "")
    assert out == f"wrote {target}: V1, 20 sequences with 158 transitions, 5,376 bytes of rows\n"
    assert json.loads(shmtable("check", target, "--json")[1])["version"] == "V1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "nowhere.zip"], "nowhere.zip: there is no such file"),
        (["info", "setup.cfg"], "setup.cfg: is no zip archive"),
        (["convert", V1, "nowhere/new.zip"], "No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments: list[str], said: str) -> None:
    code, out, err = shmtable(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("shmtable: ") and said in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["check"], ["convert", V1], ["mend", V1]])
def test_wrong_usage_is_explained(arguments: list[str]) -> None:
    code, out, err = shmtable(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: shmtable file")


def test_a_terminal_shows_how_far_it_is() -> None:
    out, shown = at_a_terminal("-m", "shmtable", "file", "check", V1)
    assert out.startswith(f"{V1} is sound")
    assert "checking" in shown and "5.4/5.4 kB" in shown


def test_without_rich_it_is_a_percentage() -> None:
    out, shown = at_a_terminal("-c", WITHOUT_RICH, "file", "check", V1)
    assert out.startswith(f"{V1} is sound")
    assert f"checking {V1} 100 %" in shown
    assert shown.endswith("\r")
