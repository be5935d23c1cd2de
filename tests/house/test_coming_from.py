"""The tables of equivalents name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import shmtable

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"
# Of the modules for frameworks, which need their packages to be looked into.
ELSEWHERE = {"Collector", "ShmReplayBuffer", "TableReplayBuffer"}


def test_what_stands_for_what_elsewhere_is_public() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    ours = "\n".join(line.split("|")[2] for line in lines)
    named = set(re.findall(r"\b[A-Z][A-Za-z]*[a-z][A-Z][A-Za-z]*", ours)) - ELSEWHERE
    assert len(named) > 20
    assert named <= set(shmtable.__all__)


def test_methods_and_functions_exist() -> None:
    text = PAGE.read_text()
    methods = re.findall(r"`table\.([a-z_]+)", text) + re.findall(r"`loader\.([a-z_]+)", text)
    assert len(methods) > 15
    for name in methods:
        assert hasattr(shmtable.ArrayMemoryTable, name) or hasattr(shmtable.MemoryLoader, name)
