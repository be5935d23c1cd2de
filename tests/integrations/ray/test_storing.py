"""Files of a distributed table, with shards that write as a test wants it."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray

from shmtable import WaitTimeoutError
from shmtable.integrations.ray import manifest, storing


class Writing:
    """An actor's class: a shard that writes after a while, or cannot."""

    def __init__(self, after_s: float = 0.0, fails: bool = False) -> None:
        self._after_s, self._fails = after_s, fails

    def store(self, path: str) -> tuple[int, int, int, int]:
        time.sleep(self._after_s)
        if self._fails:
            raise OSError("no space left")
        Path(f"{path}.zip").write_bytes(b"abc")
        return *manifest.fingerprint(f"{path}.zip"), 1, 1

    def discard(self, path: str) -> None:
        Path(f"{path}.zip").unlink()

    def has_ended(self) -> bool:
        """Answered when what was asked for before is done."""
        return True


def shards(*several: Any) -> list[Any]:
    made = ray.remote(num_cpus=0)(Writing)
    return [made.remote(**options) for options in several]


def keeper(actors: list[Any], *answers: str, needed: tuple[str, ...] = ()) -> Any:
    """A keeper that says these states, one answer after the other, and the last one again."""
    said = list(answers)
    spared: list[str] = []

    def stored(files: dict[str, str], more: list[str]) -> Any:
        spared.extend(more)
        return ray.put([])

    def states() -> Any:
        now = said.pop(0) if len(said) > 1 else said[0]
        return ray.put(
            [
                (str(place), "node", state, place, actor)
                for place, (actor, state) in enumerate(zip(actors, now.split(), strict=True))
            ]
        )

    return SimpleNamespace(
        states=SimpleNamespace(remote=states),
        stored=SimpleNamespace(remote=stored),
        needed=SimpleNamespace(remote=lambda: ray.put(list(needed))),
        spared=spared,
    )


def test_shards_that_a_restarted_keeper_has_not_heard_yet_are_waited_for(
    cluster: Any, tmp_path: Path
) -> None:
    answers = ["starting starting", "ready starting", "ready ready"]
    storing.store(keeper(shards({}, {}), *answers), tmp_path / "kept")
    assert len(manifest.read(tmp_path / "kept")) == 2


def test_a_part_of_the_shards_is_neither_stored_nor_restored(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "_STARTING_S", 0.2)
    actors = shards({}, {})
    storing.store(keeper(actors, "ready ready"), tmp_path / "kept")
    before = sorted(tmp_path.iterdir())
    partly = keeper(actors, "ready starting")
    with pytest.raises(WaitTimeoutError, match="shards 1 do not answer, so it cannot be stored"):
        storing.store(partly, tmp_path / "kept")
    with pytest.raises(WaitTimeoutError, match="so it cannot be restored whole"):
        storing.restore(partly, tmp_path / "kept", strict=True)
    assert sorted(tmp_path.iterdir()) == before


def test_where_one_fails_nothing_is_left_of_those_that_were_still_writing(
    cluster: Any, tmp_path: Path
) -> None:
    actors = shards({"fails": True}, {"after_s": 1.0})
    ray.get([actor.has_ended.remote() for actor in actors])  # both are up
    with pytest.raises(OSError, match="no space left"):
        storing.store(keeper(actors, "ready ready"), tmp_path / "kept")
    ray.get(actors[1].has_ended.remote())
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_does_not_wait_for_those_that_write(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(answers: Any, what: str) -> None:
        raise KeyboardInterrupt

    def waited(*given: Any, **options: Any) -> None:
        raise AssertionError("it waits")

    actors = shards({"after_s": 1.0}, {"after_s": 1.0})
    ray.get([actor.has_ended.remote() for actor in actors])
    with monkeypatch.context() as patch:
        patch.setattr(storing, "answered", interrupted)
        patch.setattr(storing.ray, "wait", waited)
        with pytest.raises(KeyboardInterrupt):
            storing.store(keeper(actors, "ready ready"), tmp_path / "kept")
    ray.get([actor.has_ended.remote() for actor in actors])
    assert list(tmp_path.iterdir()) == []  # each has removed its own


def test_a_lost_shards_last_file_outlives_a_store_without_it(cluster: Any, tmp_path: Path) -> None:
    path = tmp_path / "kept"
    storing.store(keeper(shards({}, {}), "ready ready"), path)
    lost, other = (str(tmp_path / entry.name) for entry in manifest.read(path))
    knowing = keeper(shards({}), "ready", needed=(lost, "/elsewhere/x-0123abcd-0"))
    storing.store(knowing, path)
    assert Path(f"{lost}.zip").exists()
    assert not Path(f"{other}.zip").exists()
    assert knowing.spared == [lost]
