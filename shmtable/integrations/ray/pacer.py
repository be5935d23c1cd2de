"""Keeps a limiter over all shards: a thread that asks and grants, and those who wait to sample."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from shmtable.errors import SpecError
from shmtable.integrations.needed import needed
from shmtable.integrations.ray.pacing import Reckoning
from shmtable.limiters import Limiter
from shmtable.protocols.pace import Grant

with needed("ray", extra="ray"):
    import ray
    from ray.exceptions import RayError

_LOGGER = logging.getLogger("shmtable")
# A round takes as long as the shards' answers; between two of them there is a pause, the longer
# the more shards there are, so that asking them stays a small part of the keeper's work.
_PAUSE_S, _PAUSE_EACH_S = 0.01, 0.001
_ANSWER_S = 1.0


class Pacer:
    """Runs in the keeper's process; methods may be called by any thread.

    Args:
        limiter: over all shards.
        shards: gives name and actor of those that are ready.
    """

    def __init__(self, limiter: Limiter, shards: Callable[[], list[tuple[str, Any]]]) -> None:
        self._reckoning = Reckoning(limiter)
        self._shards = shards
        self._changed = threading.Condition()
        self._asked: dict[str, Any] = {}
        self._rounds = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shmtable-pacer", daemon=True)
        self._thread.start()

    def admit(self, count: int, steps: int, timeout_s: float) -> str:
        """Wait until a sample may be drawn, and count it; why not, where the time is up.

        Raises:
            SpecError: it could make both sides wait for ever.
        """
        ends = time.monotonic() + timeout_s
        with self._changed:
            # What is known may be old: before a sample is refused the shards are asked once more,
            # by a round that has begun after this call.
            enough = self._rounds + 2
            while reason := self._reckoning.blocked(count, steps):
                left = ends - time.monotonic()
                if self._stop.is_set() or (left <= 0 and self._rounds >= enough):
                    return reason
                self._changed.wait(left if left > 0 else _ANSWER_S)
            self._reckoning.count(count, steps)
            return ""

    def give_back(self, count: int, steps: int) -> None:
        """An admitted sample came to nothing."""
        with self._changed:
            self._reckoning.count(-count, steps)

    def begin(self) -> None:
        """Count anew: the shards have been cleared, or restored."""
        with self._changed:
            self._reckoning.begin()
            self._asked.clear()  # what is still answered was asked before

    def forget(self, name: str) -> None:
        """A shard is lost."""
        with self._changed:
            self._reckoning.forget(name)
            self._asked.pop(name, None)

    def close(self) -> None:
        """End the thread, and all waiting."""
        self._stop.set()
        self._thread.join()
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                shards = self._round()
            except (RayError, SpecError) as error:
                _LOGGER.warning("shards cannot be paced just now: %s", error)
                shards = 100
            self._stop.wait(_PAUSE_S + _PAUSE_EACH_S * shards)

    def _round(self) -> int:
        """Ask every shard that owes no answer, and take what has been answered."""
        shards = self._shards()
        with self._changed:
            plan = self._reckoning.plan()
            for name, actor in shards:
                if name not in self._asked:
                    self._asked[name] = actor.grant.remote(plan.get(name, 0))
            asked = dict(self._asked)
        done: list[Any] = []
        if asked:
            done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
        told: dict[str, Grant] = {}
        for name, answer in asked.items():
            if answer in done:
                try:
                    told[name] = ray.get(answer)
                except RayError:
                    pass  # being restarted: what it holds is as it was
        with self._changed:
            for name, answer in asked.items():
                if self._asked.get(name) is not answer:
                    told.pop(name, None)  # forgotten, or begun anew, meanwhile
                elif answer in done:
                    del self._asked[name]
            # The first time all have to be heard, or what some hold would be missing.
            if self._reckoning.begun or len(told) == len(shards):
                self._reckoning.hear(told)
            self._rounds += 1
            self._changed.notify_all()
        return len(shards)
