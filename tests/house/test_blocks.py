"""Every piece of Python that README and docs show runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.blocks import Program, programs, run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = [
    pytest.param(program, id=f"{program.page.relative_to(ROOT)}:{program.name}")
    for page in PAGES
    if "_build" not in page.parts
    for program in programs(page)
]


@pytest.mark.parametrize("program", SHOWN)
def test_shown_code_runs(program: Program, tmp_path: Path) -> None:
    run(program, tmp_path)


def test_readme_and_docs_show_code() -> None:
    assert {param.values[0].page.name for param in SHOWN} >= {"README.md", "tutorial.md"}


def test_shown_code_that_fails_is_reported_at_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text\n\n```python\nvalue = 1\n```\n\n```python\nassert value == 2\n```\n")
    (program,) = programs(page)
    with pytest.raises(AssertionError, match=r"page.md(?s:.*)line 8, in <module>"):
        run(program, tmp_path)


def test_shown_code_that_hangs_is_ended_and_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nimport signal\nprint('here', flush=True)\nsignal.pause()\n```\n")
    with pytest.raises(AssertionError, match=r"did not end within 2 s:\nhere"):
        run(programs(page)[0], tmp_path, timeout_s=2)


def test_a_warning_in_shown_code_is_a_failure(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nimport warnings\nwarnings.warn('old', DeprecationWarning)\n```\n")
    with pytest.raises(AssertionError, match="DeprecationWarning: old"):
        run(programs(page)[0], tmp_path)


def test_a_named_block_begins_a_program_of_its_own(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\na = 1\n```\n```console\n$ ls\n```\n"
        "- item\n\n  ```python\n  # second.py, a file\n  print('second')\n  ```\n"
        "```python\nprint('third')\n```\n"
    )
    first, second = programs(page)
    assert (first.name, second.name) == ("page.py", "second.py")
    assert run(first, tmp_path) == ""
    assert run(second, tmp_path) == "second\nthird\n"


@pytest.mark.parametrize("label", ["py", "Python", "python3", "python title=x"])
def test_a_label_that_would_hide_code_is_refused(tmp_path: Path, label: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```{label}\nboom\n```\n")
    with pytest.raises(ValueError, match="would not be tested"):
        programs(page)
