"""Words that say something about how a file came to be, and nothing to its reader.

This module spells them out and is therefore the one file that is not searched.
"""

from __future__ import annotations

import re
from pathlib import Path

#: Pattern, and why it has no place here.
FORBIDDEN = {
    r"(?<!scope=\")\bsessions?\b": "work is told by what it does, not by when it was done",
    r"\bissues?\s*#?\d+\b": "say what the trouble is; numbers belong into commit messages",
    r"\bper the (brief|task|issue)\b": "give the reason itself",
    r"\b(design|protocol|style|features|contract)\.md\b": "not in this repository",
    r"\bthe seed'?s (system|file|module|documentation|document)": "not in this repository",
    r"/work/|/root/|/home/[a-z]|/tmp/[a-z]": "a path of one machine",
    r"\b(pypi|pytorch|pythonhosted|npmjs|debian)\.org\b": "installers know their registries",
    r"\b(TODO|FIXME|XXX)\b": "do it, or leave it out",
}
_SUFFIXES = {"", ".cfg", ".css", ".in", ".md", ".py", ".rst", ".sh", ".svg", ".toml", ".txt"}
_PRIVATE = {"build", "dist", "_build", "__pycache__", "demo-output", "bench-output"}
_DOTTED = {".ci", ".gitignore"}


def texts(root: Path) -> list[Path]:
    """The project's own text files: nothing built, nothing hidden but CI's script."""
    found = []
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") and part not in _DOTTED for part in parts)
        private = any(part in _PRIVATE or part.endswith(".egg-info") for part in parts)
        if path.is_file() and path.suffix in _SUFFIXES and not hidden and not private:
            found.append(path)
    return found


def forbidden_words(path: Path) -> list[str]:
    """``file:line`` of each forbidden word, with the reason."""
    findings = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for pattern, reason in FORBIDDEN.items():
            for match in re.finditer(pattern, line, re.IGNORECASE):
                findings.append(f"{path}:{number}: {match.group()!r}: {reason}")
    return findings
