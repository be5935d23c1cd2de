"""The page for those who come from elsewhere names what there is, and calls it as it can be."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import shmtable
from shmtable.cli.parser import parser
from tests.house.calls import Language, cells, codes, wrong

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "coming-from.md"


def elsewhere() -> set[str]:
    """Public names of the modules for frameworks, read without what these need to be imported."""
    names: set[str] = set()
    for path in (ROOT / "shmtable" / "integrations").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names |= set(ast.literal_eval(node.value))
    return names


OURS = Language(
    named={
        **dict.fromkeys(elsewhere()),
        **{name: getattr(shmtable, name) for name in shmtable.__all__},
    },
    stands_for={
        "shmtable": (shmtable,),
        "ArrayMemoryTable": (shmtable.ArrayMemoryTable,),
        "table": (shmtable.ArrayMemoryTable,),
        "table.sampler": (shmtable.PrioritizedSampleStrategy,),
        "writer": (shmtable.Writer, shmtable.VectorWriter),
        "loader": (shmtable.MemoryLoader,),
        "sample": (shmtable.SampleResult,),
        "sample.points": (shmtable.SamplePoints,),
    },
    whole="ArrayMemoryTable",
)


def missing(code: str) -> list[str]:
    if not code.startswith("shmtable "):
        return wrong(code, OURS)
    try:
        parser().parse_args([*code.split()[1:], "--help"])
    except SystemExit as end:
        return [f"no command: {code}"] if end.code else []
    return [f"no help: {code}"]


def test_what_is_ours_exists_and_can_be_called_so() -> None:
    pieces = [code for _, right in cells(PAGE.read_text()) for code in codes(right)]
    assert len(pieces) > 100
    assert [finding for code in pieces for finding in missing(code)] == []


def test_what_is_said_to_have_the_same_name_has() -> None:
    rows = [left for left, right in cells(PAGE.read_text()) if "`shmtable`, likewise" in right]
    names = {code.split(".")[-1] for left in rows for code in codes(left)}
    assert len(names) > 15
    assert names <= set(shmtable.__all__)


@pytest.mark.parametrize(
    "code",
    [
        "UniformSampler()",
        "columns_from_space(observation_space)",
        "shmtable.Table",
        "shmtable state",
        "table.sample(256)",
        "table.remember(identity)",
        "table.writer(chunks=...)",
        "table.sampler.gamma = ...",
        "sample.importance",
        "sample.points.keys",
        "prioritized_replay(columns, n, alpha=..., gamma=...)",
        "PrioritizedSampleStrategy(..., normalise='table')",
        "max_times=n",
        "limiter=MinimumSize(n)",
        "ArrayMemoryTable(*columns, sampler=..., remover=...)",
        "two words",
    ],
)
def test_what_is_not_there_is_found(code: str) -> None:
    assert missing(code)


@pytest.mark.parametrize(
    "code",
    [
        "MemoryLoader(table, ..., prefetch=2)",
        "uniform_replay(columns, maxlen=n, device='cuda')",
        "writer.append(obs=..., terminated=..., truncated=..., infos=...)",
        'directory=d, name="replay"',
        "shmtable stat",
        "TableReplayBuffer(table).extend(td)",
        "mask",
    ],
)
def test_what_is_there_is_let_through(code: str) -> None:
    assert missing(code) == []
