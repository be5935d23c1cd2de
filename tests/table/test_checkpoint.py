"""Saving in the background: now and then, so many files, and what happens when it fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shmtable import ArrayMemoryTable, CheckpointEvery, SpecError
from tests.tables import small_sequence

MakeTable = Callable[..., ArrayMemoryTable]
NEVER = 1e6


def zips(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".zip"))


def test_it_saves_again_and_again(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table()
    saved = threading.Semaphore(0)

    class Watched:
        """The table, and who waits for it."""

        def store(self, path: str) -> bool:
            done = table.store(path)
            saved.release()
            return done

    watched: Any = Watched()
    with CheckpointEvery(watched, tmp_path / "t", minutes=1e-4) as checkpoints:
        for _ in range(3):
            assert saved.acquire(timeout=60)
    assert checkpoints.saved >= 4  # and once more at the end
    assert len(zips(tmp_path)) == 2


def test_the_newest_stay_and_numbers_go_on(make_table: MakeTable, tmp_path: Path) -> None:
    table, other = make_table(), make_table()
    (tmp_path / "t-x.zip").touch()
    assert CheckpointEvery.latest(tmp_path / "t") is None
    for round_number in range(2):
        with CheckpointEvery(table, tmp_path / "t", minutes=NEVER, keep=3) as checkpoints:
            for number in range(4):
                identity = 10 * round_number + number
                table.add_sequence(identity, small_sequence(identity, 5))
                assert checkpoints.save()
            checkpoints.stop(save=False)
    assert zips(tmp_path) == ["t-000006.zip", "t-000007.zip", "t-000008.zip", "t-x.zip"]
    newest = CheckpointEvery.latest(tmp_path / "t")
    assert newest == str(tmp_path / "t-000008")
    other.restore(newest)
    assert other.identities().tolist() == [0, 1, 2, 3, 10, 11, 12, 13]


def test_a_failure_keeps_the_last_good_file_and_says_so(
    make_table: MakeTable, tmp_path: Path
) -> None:
    table = make_table()
    with CheckpointEvery(table, tmp_path / "t", minutes=NEVER) as checkpoints:
        assert checkpoints.save()

        def full(*_: Any) -> bool:
            raise OSError(28, "No space left on device")

        table.store, store = full, table.store  # type: ignore[method-assign]
        with pytest.warns(RuntimeWarning, match="No space.*last good file is .*t-000001.zip"):
            assert not checkpoints.save()
        assert isinstance(checkpoints.error, OSError)
        assert zips(tmp_path) == ["t-000001.zip"]
        table.store = store  # type: ignore[method-assign]
        assert checkpoints.save()
        assert checkpoints.error is None
        assert zips(tmp_path) == ["t-000001.zip", "t-000002.zip"]


def test_an_error_may_be_handed_over(make_table: MakeTable, tmp_path: Path) -> None:
    errors: list[Exception] = []
    checkpoints = CheckpointEvery(
        make_table(), tmp_path / "no folder" / "t", minutes=NEVER, on_error=errors.append
    )
    checkpoints.stop()
    assert [type(error) for error in errors] == [FileNotFoundError]
    checkpoints.stop()
    assert len(errors) == 1


@pytest.mark.parametrize("options", [{"minutes": 0}, {"minutes": float("nan")}, {"keep": 0}])
def test_what_cannot_be(make_table: MakeTable, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="give"):
        CheckpointEvery(make_table(), tmp_path / "t", **{"minutes": 1, **options})
