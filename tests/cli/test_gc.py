"""``shmtable gc``: leftovers go, tables in use stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shmtable import cli
from shmtable.shm import leftovers, places

CREATE_AND_DIE = """
import os, signal, sys
from shmtable import ArrayMemoryTable, FifoEjectionStrategy, UniformSampleStrategy
from tests.tables import small_columns
table = ArrayMemoryTable(
    columns=small_columns(), maxlen=100, name=sys.argv[1],
    sampler=UniformSampleStrategy(), ejector=FifoEjectionStrategy(),
)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_gc_removes_what_a_killed_process_left_and_nothing_else(
    make_table, unique_name, monkeypatch, capsys
) -> None:
    name = unique_name()
    # Tests that run beside this one have leftovers of their own: look at these names only.
    own = places.shared_prefix() + name
    monkeypatch.setattr(leftovers, "shared_prefix", lambda: own)
    used = make_table(name=f"{name}-used")
    command = [sys.executable, "-c", CREATE_AND_DIE, f"{name}-left"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], timeout=120, check=False)
    assert ended.returncode == -9
    assert os.path.exists(f"{own}-left")

    assert cli.main(["gc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [f"{own}-left"]
    assert not os.path.exists(f"{own}-left")
    assert os.path.exists(f"{own}-used") and used.check() == []
    assert cli.main(["gc"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_an_error_is_one_sentence_and_exit_code_1(monkeypatch, capsys) -> None:
    from shmtable.errors import ArenaPermissionError

    def refuse() -> list[str]:
        raise ArenaPermissionError("the folder belongs to somebody else; remove it")

    monkeypatch.setattr(leftovers, "sweep", refuse)
    assert cli.main(["gc"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err == "shmtable: the folder belongs to somebody else; remove it\n"


def test_no_command_is_explained(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
