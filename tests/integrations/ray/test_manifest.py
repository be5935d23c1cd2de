"""The file that names the shards' files is believed only after it was checked."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import filelock

from shmtable import FileDamagedError, FileMissingError, FileUnsafeError, FileVersionError
from shmtable.integrations.ray import manifest
from shmtable.integrations.ray.manifest import ShardFile

ENTRY = {"name": "x-0123abcd-0", "size": 3, "crc": 4, "transitions": 5, "sequences": 6}


def written(tmp_path: Path, **changes: Any) -> Path:
    text = {"kind": "shmtable shards", "version": 1, "shards": [{**ENTRY, **changes}]}
    (tmp_path / "x.shards.json").write_text(json.dumps(text))
    return tmp_path / "x"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entry = ShardFile(**ENTRY)  # type: ignore[arg-type]
    manifest.write(tmp_path / "x", [entry])
    assert manifest.read(tmp_path / "x") == [entry]


def test_files_that_only_the_manifest_before_named_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    first, second = manifest.new_names(path, 2), manifest.new_names(path, 1)
    for name in (*first, *second):
        (tmp_path / f"{name}.zip").write_bytes(b"abc")
        (tmp_path / f"{name}.zip.lock").touch()
    (tmp_path / "other.zip").touch()
    manifest.write(path, [ShardFile(name, 3, 4, 5, 6) for name in first])
    assert len(list(tmp_path.glob("*.zip"))) == 4
    manifest.write(path, [ShardFile(name, 3, 4, 5, 6) for name in second])
    assert {found.name for found in tmp_path.glob("*.zip")} == {f"{second[0]}.zip", "other.zip"}
    assert not list(tmp_path.glob(f"{first[0]}*"))


def test_files_that_are_needed_are_spared(tmp_path: Path) -> None:
    path = tmp_path / "x"
    first = manifest.new_names(path, 2)
    for name in first:
        (tmp_path / f"{name}.zip").write_bytes(b"abc")
    manifest.write(path, [ShardFile(name, 3, 4, 5, 6) for name in first])
    assert manifest.write(path, [], first[:1]) == first[:1]
    assert [found.name for found in tmp_path.glob("*.zip")] == [f"{first[0]}.zip"]


def test_what_a_dead_shard_has_not_finished_is_removed_by_the_next_store(tmp_path: Path) -> None:
    path = tmp_path / "x"
    dead, living = manifest.new_names(path, 2)
    others = ["other-0123abcd-0", "x-y-0123abcd-0"]
    for name in (dead, living, *others):
        (tmp_path / f".{name}.zip.0123456789abcdef.partial").touch()
        (tmp_path / f"{name}.zip.lock").touch()
    with filelock.FileLock(tmp_path / f"{living}.zip.lock"):  # of a store that goes on beside it
        manifest.write(path, [])
    left = {name.name for name in tmp_path.glob(".*.partial")}
    assert left == {f".{name}.zip.0123456789abcdef.partial" for name in (living, *others)}
    assert not (tmp_path / f"{dead}.zip.lock").exists()
    assert (tmp_path / f"{living}.zip.lock").exists()


def test_files_of_a_manifest_that_was_written_meanwhile_are_removed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    theirs, ours = manifest.new_names(path, 1), manifest.new_names(path, 1)
    for name in (*theirs, *ours):
        (tmp_path / f"{name}.zip").write_bytes(b"abc")
    replacing = manifest.replacing

    def after_another(where: str) -> AbstractContextManager[int]:
        monkeypatch.undo()
        manifest.write(path, [ShardFile(name, 3, 4, 5, 6) for name in theirs])
        return replacing(where)

    monkeypatch.setattr(manifest, "replacing", after_another)
    manifest.write(path, [ShardFile(name, 3, 4, 5, 6) for name in ours])
    assert [found.name for found in tmp_path.glob("*.zip")] == [f"{ours[0]}.zip"]


@pytest.mark.parametrize(
    "name",
    ["../x-0123abcd-0", "/x-0123abcd-0", "y-0123abcd-0", "x-0123abcd-0/..", "x-0123abcd-0\n", ""],
)
def test_a_name_that_leads_elsewhere_is_unsafe(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileUnsafeError, match="nothing was opened"):
        manifest.read(written(tmp_path, name=name))


@pytest.mark.parametrize(
    "changes",
    [{"size": -1}, {"size": "3"}, {"crc": 1.5}, {"more": 1}, {"name": 5}, {"size": True}],
    ids=str,
)
def test_what_describes_no_file_is_damaged(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(FileDamagedError, match="describes no shard's file"):
        manifest.read(written(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"kind": "other"}', "[" * 100_000])
def test_what_is_no_manifest_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.shards.json").write_text(text)
    with pytest.raises(FileDamagedError, match="no manifest of shards, or is cut short"):
        manifest.read(tmp_path / "x")


def test_a_later_version_and_a_missing_file_are_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "x.shards.json").write_text('{"kind": "shmtable shards", "version": 2}')
    with pytest.raises(FileVersionError, match="is format 2; this shmtable reads 1: upgrade"):
        manifest.read(tmp_path / "x")
    with pytest.raises(FileMissingError, match="does not exist; give store"):
        manifest.read(tmp_path / "y")


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    size, crc = manifest.fingerprint(str(tmp_path / "file"))
    manifest.refuse_changed(str(tmp_path / "file"), size, crc)
    (tmp_path / "file").write_bytes(b"abd")
    with pytest.raises(FileDamagedError, match="has been changed or replaced"):
        manifest.refuse_changed(str(tmp_path / "file"), size, crc)
    with pytest.raises(FileMissingError, match="not to be seen from this node"):
        manifest.refuse_changed(str(tmp_path / "other"), size, crc)
