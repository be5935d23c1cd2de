"""Sampling with a keeper that answers as a test wants it."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import threading
from types import SimpleNamespace
from typing import Any

import ray

from shmtable import WaitTimeoutError
from shmtable.integrations.ray.entries import Seen
from shmtable.integrations.ray.sampling import Sampling


class Silent:
    """An actor's class that never answers."""

    def seen(self) -> None:
        threading.Event().wait()


def test_without_any_shard_a_sample_waits_no_longer_than_its_deadline(cluster: Any) -> None:
    asked = []

    def seen(at_least: int, timeout_s: float) -> Any:
        asked.append(timeout_s)
        return ray.put(Seen(1, (), 0, 0))

    keeper = SimpleNamespace(seen=SimpleNamespace(remote=seen))
    with pytest.raises(WaitTimeoutError, match="no shard is known to be ready"):
        Sampling(keeper, (), 0.1).sample(1, 1, 0.0)
    assert max(asked) <= 0.1


def test_a_keeper_that_does_not_answer_is_not_waited_for_either(cluster: Any) -> None:
    actor = ray.remote(num_cpus=0)(Silent).remote()
    keeper = SimpleNamespace(seen=SimpleNamespace(remote=lambda *_: actor.seen.remote()))
    with pytest.raises(WaitTimeoutError, match="no shard is known to be ready"):
        Sampling(keeper, (), 0.1).sample(1, 1, 0.0)
    ray.kill(actor)
