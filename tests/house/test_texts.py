"""Files are short, and speak of the subject only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import words
from tests.house.words import forbidden_words, texts

ROOT = Path(__file__).parents[2]
LONGEST_FILE = 400


def too_long(root: Path) -> list[str]:
    """Python files beyond the ceiling."""
    return [
        f"{path}: {lines} lines, at most {LONGEST_FILE}; split it"
        for path in texts(root)
        if path.suffix == ".py" and (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    ]


def test_no_file_is_too_long() -> None:
    assert too_long(ROOT) == []


def test_a_long_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "long.py").write_text("x = 1\n" * (LONGEST_FILE + 1))
    (tmp_path / "full.py").write_text("x = 1\n" * LONGEST_FILE)
    assert [finding.partition(":")[0] for finding in too_long(tmp_path)] == [
        str(tmp_path / "folder" / "long.py")
    ]


def test_no_file_speaks_of_how_it_came_to_be() -> None:
    itself = Path(words.__file__)
    here = Path(__file__)
    searched = [path for path in texts(ROOT) if path not in (itself, here)]
    assert len(searched) > 50
    assert [finding for path in searched for finding in forbidden_words(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "# written in the last session",
        "# see issue 12",
        "# Issue #3 says",
        "as design.md says",
        "path = '/work/main'",
        "cd /root/x",
        "the seed's system does",
        "index-url = https://pypi.org/simple",
        "# TODO: later",
    ],
)
def test_each_forbidden_word_is_found(tmp_path: Path, line: str) -> None:
    path = tmp_path / "file.py"
    path.write_text(f"x = 1\n{line}\n")
    assert [finding.startswith(f"{path}:2: ") for finding in forbidden_words(path)] == [True]


@pytest.mark.parametrize(
    "line", ['@pytest.fixture(scope="session")', "seed = 3", "the seed's value", "#5 green apples"]
)
def test_innocent_words_are_not(tmp_path: Path, line: str) -> None:
    path = tmp_path / "file.py"
    path.write_text(line)
    assert forbidden_words(path) == []


def test_texts_are_the_projects_own(tmp_path: Path) -> None:
    for name in ("a.py", ".venv/b.py", "docs/_build/c.md", "x.egg-info/d.txt", ".ci/run", "e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [str(path.relative_to(tmp_path)) for path in texts(tmp_path)] == [".ci/run", "a.py"]
