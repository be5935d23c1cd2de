"""``ls``, ``stat``, ``check`` and ``rm``: of tables in every state."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from shmtable import Onlooker, PreviousElementMapper, SampleToInsertRatio, VirtualColumn
from shmtable.shm import places
from tests.cli.running import ROOT, fill, shmtable
from tests.cli.test_gc import CREATE_AND_DIE
from tests.tables import small_columns


def leave_behind(name: str) -> str:
    """Have a killed process leave a table; returns its file."""
    command = [sys.executable, "-c", CREATE_AND_DIE, name]
    assert subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode == -9
    return places.shared_prefix() + name


def put(name: str, content: bytes) -> str:
    """Make a file where a table of that name would be."""
    path = places.shared_prefix() + name
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    return path


def listed(*arguments: str) -> dict[str, dict]:
    """What ``ls`` says, by name."""
    return {entry["name"]: entry for entry in json.loads(shmtable("ls", "--json", *arguments)[0])}


def test_ls_names_every_state(make_table, unique_name) -> None:
    used, unnamed = make_table(name=unique_name()), make_table()
    fill(used)
    fill(unnamed, 7)
    dead, damaged, empty, open_to_all = (unique_name() for _ in range(4))
    paths = [leave_behind(dead)]
    with open(paths[0], "rb") as file:
        header = bytearray(file.read(8192))
    paths += [put(damaged, b"something else" * 1000), put(empty, bytes(8192))]
    cut = unique_name()
    paths += [put(cut, bytes(header)), put(open_to_all, b"")]
    os.chmod(paths[-1], 0o644)
    try:
        found = listed()
        people, _ = shmtable("ls")
    finally:
        for path in paths:
            os.unlink(path)
    name = used._core.arena.name
    assert found[name]["state"] == "in use" and found[name]["pids"] == [os.getpid()]
    stats = found[name]["stats"]
    assert (stats["transitions"], stats["sequences"], stats["fill"]) == (100, 5, 0.1)
    assert (stats["windows_sampled"], stats["replay_ratio"]) == (10, 0.4)
    assert found[name]["taken_bytes"] > 4096
    (mine,) = (n for n in found if n.startswith(f"{os.getpid()}:"))
    assert found[mine]["state"] == "in use" and found[mine]["stats"]["sequences"] == 7
    assert found[dead]["state"] == "dead" and "gc" in found[dead]["detail"]
    assert found[damaged]["state"] == "damaged"
    assert "not a shmtable arena" in found[damaged]["detail"]
    assert found[cut]["state"] == "damaged" and "contradicts itself" in found[cut]["detail"]
    assert found[empty]["state"] == "unfinished"
    assert found[open_to_all]["state"] == "foreign" and "0644" in found[open_to_all]["detail"]
    assert f"{dead}  " in people and "  unfinished  " in people


def test_ls_and_rm_of_tables_on_disk(make_table, tmp_path) -> None:
    directory = str(tmp_path)
    table = make_table(name="here", directory=directory)
    fill(table)
    assert listed("--directory", directory)["here"]["state"] == "in use"
    table.close()
    found = listed("--directory", directory)["here"]
    assert found["state"] == "at rest" and found["stats"]["transitions"] == 100
    out, _ = shmtable("rm", "here", "--directory", directory)
    assert out.startswith("removed ") and "100 transitions in 5 sequences" in out
    assert listed("--directory", directory) == {}
    _, err = shmtable("ls", "--directory", f"{directory}/no", code=1)
    assert err.startswith("shmtable: ") and "give an existing folder" in err


def test_stat_says_everything_and_the_table_does_not_notice(make_table, unique_name) -> None:
    name = unique_name()
    table = make_table(name=name, limiter=SampleToInsertRatio(1.0, 20, 10_000))
    fill(table)
    before = bytes(table._core.arena.words)
    found = json.loads(shmtable("stat", name, "--json")[0])
    people, _ = shmtable("stat", name)
    assert bytes(table._core.arena.words) == before
    assert found["name"] == name and found["state"] == "in use"
    assert [column["name"] for column in found["columns"]][:2] == ["obs", "next_obs"]
    assert found["sampler"] == {"type": "UniformSampleStrategy", "config": {}}
    assert found["options"]["maxlen"] == 1000 and not found["half_changed"]
    assert found["stats"]["limiter"].startswith("SampleToInsertRatio(ratio=1.0")
    (process,) = found["stats"]["processes"]
    assert process["pid"] == os.getpid() and process["sequences_added"] == 5
    assert "100 of 1,000 (10 %)" in people and "NextElementMapper of obs" in people
    _, err = shmtable("stat", f"{name}-no", code=1)
    assert err.count("\n") == 1 and "'shmtable ls' says which tables do" in err
    assert "must be 1 to 100 letters" in shmtable("stat", "../x", code=1)[1]


def test_check_finds_what_is_broken(make_table, unique_name) -> None:
    name = unique_name()
    table = make_table(name=name)
    fill(table)
    out, _ = shmtable("check", name)
    assert out == f"{name} is sound: 5 sequences with 100 transitions\n"
    words = table._core.arena.words
    live_steps = 97
    words[live_steps] += 1
    try:
        found = json.loads(shmtable("check", name, "--json", code=1)[0])
        assert not found["sound"] and found["findings"]
        assert "is not sound:" in shmtable("check", name, code=1)[0]
    finally:
        words[live_steps] -= 1


def test_check_of_a_table_without_a_name(make_table) -> None:
    table = make_table()
    fill(table)
    (mine,) = (name for name in listed() if name.startswith(f"{os.getpid()}:"))
    assert "is sound: 5 sequences" in shmtable("check", mine)[0]


def test_rm_refuses_what_is_in_use_and_says_what_would_be_lost(make_table, unique_name) -> None:
    name = unique_name()
    table = make_table(name=name)
    fill(table)
    path = places.shared_prefix() + name
    out, err = shmtable("rm", name, code=1)
    assert out == "" and os.path.exists(path)
    assert f"in use by process {os.getpid()}" in err and "--force" in err
    assert "100 transitions in 5 sequences" in err
    out, _ = shmtable("rm", name, "--force")
    assert not os.path.exists(path) and "100 transitions" in out
    assert table.size() == 100  # who has it goes on
    (mine,) = (entry for entry in listed().values() if entry["pids"] == [os.getpid()])
    assert (mine["state"], mine["detail"]) == ("in use", "its name has been removed")
    _, err = shmtable("rm", name, code=1)
    assert "does not exist" in err


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
def test_rm_never_removes_what_is_no_table(unique_name, force) -> None:
    name = unique_name()
    path = put(name, b"my own notes" * 1000)
    link = put(f"{name}-link", b"")
    os.unlink(link)
    os.symlink(path, link)
    try:
        for victim, reason in ((name, "is no table"), (f"{name}-link", "not a regular file")):
            _, err = shmtable("rm", victim, *force, code=1)
            assert reason in err
        assert os.path.islink(link) and os.path.exists(path)
    finally:
        os.unlink(link)
        os.unlink(path)


def test_rm_removes_dead_and_unfinished_ones(unique_name) -> None:
    dead, unfinished = unique_name(), unique_name()
    paths = [leave_behind(dead), put(unfinished, bytes(8192))]
    for name, path in zip((dead, unfinished), paths, strict=True):
        out, _ = shmtable("rm", name)
        assert out.startswith(f"removed {path}: ") and not os.path.exists(path)


class OwnMapper(PreviousElementMapper):
    """One that the command cannot know."""


def test_a_table_with_classes_of_ones_own_can_be_looked_at(make_table, unique_name) -> None:
    columns = [*small_columns(), VirtualColumn("later", (), "int64", "actions", OwnMapper)]
    table = make_table(name=unique_name(), columns=columns)
    fill(table)
    name = table._core.arena.name
    found = json.loads(shmtable("stat", name, "--json")[0])
    with Onlooker(name) as onlooker:
        assert onlooker.stats().bytes_payload == table.stats().bytes_payload
        assert onlooker.sequences().lengths.tolist() == [20] * 5
    assert found["stats"]["transitions"] == 100 and found["columns"][-1]["mapper"] == "OwnMapper"
    assert found["stats"]["oldest_age_transitions"] == 80
    _, err = shmtable("check", name, code=1)
    assert "'OwnMapper' is not known to this program" in err


@pytest.mark.parametrize("command", ["stat", "check", "report"])
def test_the_only_table_in_use_need_not_be_named(make_table, tmp_path, command: str) -> None:
    if command == "report":
        pytest.importorskip("matplotlib")
    here = ("--directory", str(tmp_path), "--json")
    more = ("--watch", "0", "-o", str(tmp_path / "page.html")) if command == "report" else ()
    _, err = shmtable(command, *here, *more, code=1)
    assert "no table is in use; 'shmtable ls' lists" in err
    fill(make_table(name="one", directory=str(tmp_path)))
    make_table(name="old", directory=str(tmp_path)).close()  # at rest
    assert json.loads(shmtable(command, *here, *more)[0])["name"] == "one"
    make_table(name="two", directory=str(tmp_path))
    _, err = shmtable(command, *here, *more, code=1)
    assert "2 tables are in use; give the name of one: one, two" in err


def test_what_it_was_called_with_is_explained() -> None:
    _, err = shmtable("rm", code=2)
    assert "NAME" in err
    _, err = shmtable("bench", "--seconds", "0", code=2)
    assert "0 is not between" in err
    out, _ = shmtable("rm", "--help")
    assert "examples:\n  $ shmtable rm replay\n" in out and "--force" in out
