"""The troubleshooting page is headed by what users really see."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
#: Said by others than this package.
FOREIGN = {"terminate called without an active exception"}


def symptoms(text: str) -> list[str]:
    """The messages quoted in headings."""
    return re.findall(r"^## `(.+)`$", text, re.MULTILINE)


def said(package: Path) -> Iterator[str]:
    """Every piece of text in the package's source."""
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def unheard(symptom: str, texts: list[str]) -> list[str]:
    """Pieces of a message that the package never says."""
    pieces = [piece for piece in symptom.split("…") if len(piece) > 5]
    return [piece for piece in pieces if not any(piece in text for text in texts)]


def test_every_symptom_is_one() -> None:
    texts = list(said(ROOT / "shmtable"))
    found = [one for one in symptoms(PAGE.read_text()) if one not in FOREIGN]
    assert len(found) > 10
    assert {one: pieces for one in found if (pieces := unheard(one, texts))} == {}


@pytest.mark.parametrize("symptom", ["waited … s for Godot", "the table's lack"])
def test_what_is_never_said_is_found(symptom: str) -> None:
    assert unheard(symptom, ["waited ", " s for the table's lock"]) != []
