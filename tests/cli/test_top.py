"""``top``: what goes on, without a terminal and with one, and when the table goes away."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from shmtable import ArrayMemoryTable
from tests.cli.running import ROOT, add_until_told, fill, shmtable
from tests.multiprocess.recipe import Crew


def start_top(*arguments: str, **options) -> subprocess.Popen:
    """A ``top`` that runs beside the test."""
    command = [sys.executable, "-m", "shmtable", "top", *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, **options)


def test_once_tells_rates_and_every_process(make_table, unique_name) -> None:
    name = unique_name()
    table = make_table(name=name)
    with Crew("fork") as crew:
        writer = crew.add(add_until_told, table)
        pid = str(writer.pid)
        crew.go()
        assert writer.hear() == "adding"
        found = json.loads(shmtable("top", name, "--once", "--interval", "0.3", "--json")[0])
        people, _ = shmtable("top", name, "--once", "--interval", "0.3")
        writer.tell("enough")
        crew.results()
    rates = found["rates"]
    assert 0.3 <= rates["interval_s"] < 60 and not found["gone"]
    assert rates["transitions_added_per_s"] == pytest.approx(20 * rates["sequences_added_per_s"])
    assert rates["transitions_added_per_s"] > 0 and rates["transitions_sampled_per_s"] > 0
    assert rates["replay_ratio"] == pytest.approx(1, abs=0.2) and rates["oldest_age_s"] > 0
    by_pid = rates["transitions_added_per_s_by_pid"]
    assert by_pid[pid] > 0
    assert by_pid[str(os.getpid())] == 0
    assert people.startswith(f"{name}\nfill ") and "replay ratio" in people
    assert "LAST ADDED" in people and " alive " in people


def test_a_table_that_nobody_changes_has_no_rates(make_table, unique_name) -> None:
    name = unique_name()
    fill(make_table(name=name))
    found = json.loads(shmtable("top", name, "--once", "--interval", "0.01", "--json")[0])
    assert found["rates"]["transitions_added_per_s"] == 0
    assert found["rates"]["replay_ratio"] is None and found["rates"]["oldest_age_s"] is None
    _, err = shmtable("top", f"{name}-no", code=1)
    assert "check its name by 'shmtable ls'" in err and err.count("\n") == 1


def test_it_ends_by_itself_when_the_last_process_is_killed(make_table) -> None:
    """The table has no name, so ``top`` reaches it through its owner, who dies."""
    code = (
        "import time, sys, shmtable as st\n"
        "from tests.tables import small_columns, small_sequence\n"
        "t = st.ArrayMemoryTable(columns=small_columns(), maxlen=1000, length_key='actions',\n"
        "    sampler=st.UniformSampleStrategy(), ejector=st.FifoEjectionStrategy())\n"
        "print(t._core.arena.address().holders[0].fd, flush=True)\n"
        "i = 0\n"
        "while True:\n"
        "    t.add_sequence(i, small_sequence(i % 1000, 20)); i += 1\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        name = f"{owner.pid}:{int(owner.stdout.readline())}"
        top = start_top(name, "--interval", "0.05", "--json", stdout=subprocess.PIPE)
        assert top.stdout is not None
        first = json.loads(top.stdout.readline())
        owner.kill()
        out, _ = top.communicate(timeout=60)
    finally:
        owner.kill()
        owner.communicate()
    assert first["stats"]["transitions_added"] > 0 and not first["gone"]
    last = json.loads(out.splitlines()[-1])
    assert last["gone"] and [p["alive"] for p in last["stats"]["processes"]] == [False]
    assert top.returncode == 0


def test_on_a_terminal_one_page_replaces_the_other_until_the_table_is_closed(
    make_table, unique_name
) -> None:
    name = unique_name()
    table = make_table(name=name)
    fill(table)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    top = start_top(name, "--interval", "0.1", stdout=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while b"LAST ADDED" not in shown:
            shown += os.read(ours, 4096)
        table.close()
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # nobody has the other side open any more
        pass
    finally:
        os.close(ours)
    assert top.wait(60) == 0
    assert f"{name} is gone: every process" in shown.decode()


def test_a_killed_top_is_not_missed(make_table, unique_name) -> None:
    name = unique_name()
    table = make_table(name=name)
    fill(table)
    top = start_top(name, "--interval", "0.01", stdout=subprocess.PIPE)
    assert top.stdout is not None and top.stdout.readline() == f"{name}\n"
    attached = table.stats().attachments
    top.kill()
    top.communicate()
    stats = table.stats()
    assert (stats.attachments, stats.recoveries, len(stats.processes)) == (attached, 0, 1)
    assert isinstance(ArrayMemoryTable.attach(name), ArrayMemoryTable)
