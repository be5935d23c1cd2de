"""The part of a page that another command has measured, and that outlives the page."""

from __future__ import annotations

from pathlib import Path

_BEGIN, _END = "<!-- on a GPU: begin -->\n", "<!-- on a GPU: end -->\n"


def kept(path: Path) -> str:
    """What a page has between its marks, the marks included; empty where it has none."""
    text = path.read_text() if path.exists() else ""
    return f"\n{_BEGIN}{text.split(_BEGIN)[1].split(_END)[0]}{_END}" if _BEGIN in text else ""


def put(path: Path, part: str) -> None:
    """Write the part into a page, in the place of the one before, or at the end."""
    text = path.read_text() if path.exists() else ""
    before = kept(path)
    if before:
        text = text.replace(before, "")
    path.write_text(f"{text.rstrip()}\n\n{_BEGIN}{part}{_END}")
