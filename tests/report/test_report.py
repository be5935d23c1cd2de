"""The report page: complete in itself, well formed, and it says in words what it draws."""

from __future__ import annotations

import html.parser
import re
import sys

import pytest

from shmtable import MissingExtraError, Onlooker, PrioritizedSampleStrategy
from shmtable.report import write_report
from tests.cli.running import fill

_VOID = {"meta", "br", "path", "use", "rect", "link"}


class Page(html.parser.HTMLParser):
    """Checks that every element is closed, and notes ids, what refers to them, and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.fetched: list[str] = []
        self.svgs = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list) -> None:
        given = dict(attributes)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self._note(tag, given)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self._note(tag, dict(attributes))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def _note(self, tag: str, given: dict) -> None:
        if "id" in given:
            self.ids.append(given["id"])
        for name in ("href", "xlink:href", "src"):
            if name in given:
                target = given[name]
                (self.references.add if target[0] == "#" else self.fetched.append)(target)
        self.references.update("#" + name for name in given.get("aria-labelledby", "").split())
        for value in given.values():
            self.references.update(re.findall(r"url\((#[^)]*)\)", value or ""))
        if tag == "svg":
            self.svgs += 1
            assert given["role"] == "img" and given["aria-labelledby"]


@pytest.fixture
def write(tmp_path):
    pytest.importorskip("matplotlib")

    def write(table, **options) -> tuple[str, Page]:
        path = tmp_path / "report.html"
        write_report(table, path, **options)
        text = path.read_text()
        page = Page(text)
        assert page.open == [] and page.fetched == []
        assert len(page.ids) == len(set(page.ids))
        assert page.references <= {f"#{name}" for name in page.ids}
        assert "<script" not in text and text.startswith('<!DOCTYPE html>\n<html lang="en">')
        return text, page

    return write


def test_everything_is_drawn_and_said(make_table, write) -> None:
    table = make_table(sampler=PrioritizedSampleStrategy())
    fill(table)
    text, page = write(table, watch_s=0.2)
    assert page.svgs == 7
    for title in ("Fill over time", "Rates in and out", "Priorities", "Who added what"):
        assert f"<h3>{title}</h3>" in text and f">{title}</title>" in text
    assert "From 10 % to 10 % of maxlen" in text
    assert "5 in all, 20 to 20 (transitions)" in text
    assert ">20</text>" in text and ">20.2</text>" not in text  # no fractions of a transition
    assert "PrioritizedSampleStrategy(alpha=0.6" in text
    assert "#010203" not in text and "currentColor" in text


def test_an_empty_table_and_a_single_look(make_table, write) -> None:
    text, page = write(make_table(), watch_s=0)
    assert page.svgs == 0 and "nothing to draw" in text


def test_what_a_table_is_called_cannot_break_the_page(make_table, write) -> None:
    table = make_table()
    fill(table)
    with Onlooker.of(table) as onlooker:
        onlooker.name = "<script>alert('&')</script>"
        text, page = write(onlooker, watch_s=0)
    assert page.svgs == 4 and "&lt;script&gt;" in text


def test_a_page_that_cannot_be_written_leaves_the_one_before(make_table, write, tmp_path) -> None:
    table = make_table()
    write(table, watch_s=0)
    with pytest.raises(OSError):
        write_report(table, tmp_path / "no" / "report.html", watch_s=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_without_matplotlib_the_extra_is_named(make_table, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("shmtable.report.write.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'shmtable\[watch\]'"):
        write_report(make_table(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == [] and "matplotlib" not in sys.argv
