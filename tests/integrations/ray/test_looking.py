"""What is asked of all shards, with shards that answer as a test wants it."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

from typing import Any

import ray

from shmtable import LockTimeoutError, UnknownIdentityError
from shmtable.integrations.ray.looking import Looking, State


class Answering:
    """An actor's class: a shard that has one sequence, or cannot say."""

    def __init__(self, identity: int = 0, fails: bool = False) -> None:
        self._identity, self._fails = identity, fails

    def sequence(self, identity: int) -> str:
        if self._fails:
            raise LockTimeoutError("waited 60 s for the table's lock")
        if identity != self._identity:
            raise UnknownIdentityError(f"identity {identity} is not in the table")
        return f"that of {identity}"


class Asking(Looking):
    """Knows its shards without a keeper."""

    def __init__(self, *shards: Any) -> None:
        made = ray.remote(num_cpus=0)(Answering)
        self._shards = [made.remote(**options) for options in shards]

    def _every(self) -> list[State]:
        return [("name", "node", "ready", 1, actor) for actor in self._shards]


def test_a_shard_that_cannot_say_whether_it_has_a_sequence_is_heard(cluster: Any) -> None:
    asking = Asking({"identity": 1}, {"fails": True}, {"identity": 2})
    assert asking._first("sequence", 1) == "that of 1"
    assert asking._first("sequence", 2) == "that of 2"  # whatever another one says
    with pytest.raises(LockTimeoutError, match="waited 60 s"):
        asking._first("sequence", 3)
    ray.kill(asking._shards.pop(1))
    with pytest.raises(UnknownIdentityError, match="identity 3 is in no shard that answers"):
        asking._first("sequence", 3)


class Telling(Looking):
    """Is told of its shards: one answer after the other."""

    def __init__(self, *answers: list[State]) -> None:
        self._answers = list(answers)

    def _every(self) -> list[State]:
        return self._answers.pop(0)


def test_shards_that_an_earlier_keeper_knew_are_waited_for_and_new_ones_are_not() -> None:
    actor = object()
    new = ("new", "node", "starting", 0, None)
    known: list[State] = [
        ("known", "node", "starting", 7, None),
        ("known", "node", "starting", 7, actor),
        ("known", "node", "ready", 7, actor),
    ]
    asking = Telling(*([new, state] for state in known))
    assert asking._settled() == [known[-1]]
    assert asking._answers == []
