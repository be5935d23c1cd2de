"""Samples of all shards: asked for in parallel, taken within a deadline, put together.

A shard that has not answered by the deadline, or whose actor has died, gives nothing to this
batch: its windows come from the others. It is left alone until the late answer has come, or for a
while, and its windows are not sampled meanwhile. An answer that comes late is dropped. Nothing in a
shard waits for its answer to be taken, so neither does anything remain of a learner that dies with
batches asked for ahead.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shmtable.columns import Column
from shmtable.errors import EmptyTableError, NoWindowError, SampleError, WaitTimeoutError
from shmtable.integrations.needed import needed
from shmtable.integrations.ray.draws import Batch, Float64Array, chances, drawn, guessed, redrawn
from shmtable.integrations.ray.entries import Seen
from shmtable.integrations.ray.keeper import told
from shmtable.integrations.ray.values import Offer, Part
from shmtable.types import Int64Array, SampleResult

with needed("ray", extra="ray"):
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError

_LOGGER = logging.getLogger("shmtable")
_REFRESH_S = 0.5
_AWAY_S = 0.5
_ROUNDS = 8
_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.05
# How long to wait where nobody has answered by the deadline, so that there is nothing else to do.
_PATIENCE_S = 30.0


Found = SampleResult | SampleError | WaitTimeoutError


@dataclass(eq=False)
class Known:
    """A shard, as one process that samples knows it.

    Attributes:
        name, node, table, actor: as the keeper says.
        weights: its last offers, by window length.
        late: an answer that has missed its deadline and is still to come, or None.
        away_until: no questions before, in ``time.monotonic()``: it did not answer.
    """

    name: str
    node: str
    table: int
    actor: Any
    weights: dict[int, float] = field(default_factory=dict)
    late: Any = None
    away_until: float = 0.0


@dataclass(eq=False)
class Pending:
    """A batch that has been asked for.

    Attributes:
        count, steps: of the sample.
        shards: that were asked.
        asked: float64 [n], with what chances.
        places: int64 [B], which of them each window was asked of.
        answers: references to what they will answer.
    """

    count: int
    steps: int
    shards: list[Known]
    asked: Float64Array
    places: Int64Array
    answers: list[Any]


class Sampling:
    """One process's way to sample all shards. Threads take turns, batch by batch.

    Args:
        keeper: the actor.
        columns: the table's.
        deadline_s: how long to wait for a shard while others have answered.

    Attributes:
        late, redrawn: answers that missed the deadline; windows taken from another shard than was
            asked.
    """

    def __init__(self, keeper: Any, columns: Sequence[Column], deadline_s: float) -> None:
        self._keeper = keeper
        self._columns: Mapping[str, Column] = {column.name: column for column in columns}
        self._deadline_s = deadline_s
        self._random = np.random.Generator(np.random.SFC64())
        self._seen: Seen | None = None
        self._known: list[Known] = []
        self._news: Any = None
        self._news_at = 0.0
        self.late = self.redrawn = 0
        self._lock = threading.RLock()

    def reseed(self, seed: Sequence[int]) -> None:
        """Choose the shards from here on as ``seed`` says."""
        with self._lock:
            self._random = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed)))

    # -- a sample --------------------------------------------------------------------------

    def sample(self, count: int, steps: int, timeout_s: float | None) -> SampleResult:
        """Draw ``count`` windows of ``steps`` transitions; see ``ArrayMemoryTable.sample``."""
        began = time.monotonic()
        ends = None if timeout_s is None else began + timeout_s
        pause = _PAUSE_S
        while True:
            found = self.take(self.ask(count, steps))
            if isinstance(found, SampleResult):
                return found
            left = _PATIENCE_S if ends is None else ends - time.monotonic()
            if isinstance(found, WaitTimeoutError):  # silence says nothing about what is there
                left = max(left, began + self._deadline_s - time.monotonic())
            if left <= 0:
                if not timeout_s:
                    raise found
                fact = str(found).partition(";")[0]
                raise WaitTimeoutError(
                    f"waited {timeout_s:g} s for something to sample: {fact}; see that whoever "
                    "adds is alive",
                    timeout_s=timeout_s,
                )
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def ask(self, count: int, steps: int) -> Pending:
        """Ask the shards for a batch; to be taken later."""
        with self._lock:
            return self._ask(count, steps)

    def _ask(self, count: int, steps: int) -> Pending:
        shards = self._present(time.monotonic())
        if not shards:
            none = np.empty(0, np.int64)
            return Pending(count, steps, [], np.empty(0), none, [])
        asked = guessed([shard.weights.get(steps) for shard in shards])
        places = drawn(count, asked, self._random)
        counts = np.bincount(places, minlength=len(shards)).tolist()
        # Those from which no window is wanted are asked as well: what they offer counts.
        answers = [
            shard.actor.draw.remote(number, steps)
            for shard, number in zip(shards, counts, strict=True)
        ]
        return Pending(count, steps, shards, asked, places, answers)

    def take(self, pending: Pending) -> Found:
        """The batch; or why there is none."""
        batch = self.gather(pending)
        return batch.result() if isinstance(batch, Batch) else batch

    def gather(self, pending: Pending) -> Batch | SampleError | WaitTimeoutError:
        """What was asked for, put together; or why there is nothing."""
        with self._lock:
            return self._gather(pending)

    def _gather(self, pending: Pending) -> Batch | SampleError | WaitTimeoutError:
        shards, steps = pending.shards, pending.steps
        # From now on, and not from when it was asked for: an answer may lie ready on its node since
        # long ago, and is only brought here when it is asked for.
        parts = self._answers(shards, pending.answers, time.monotonic())
        offers = [part.offer for part in parts if part is not None]
        if not shards:
            return WaitTimeoutError(
                "no shard is known to be ready; see that its nodes are alive, or wait longer"
            )
        if not offers:
            return WaitTimeoutError(
                f"none of {len(shards)} shards answers; see the log of the keeper, or wait longer"
            )
        weights = [0.0 if part is None else part.offer.weight for part in parts]
        for shard, part in zip(shards, parts, strict=True):
            if part is not None:
                shard.weights[steps] = part.offer.weight
        right = chances(weights)
        if right is None:
            return _nothing(offers, steps)
        batch = Batch(pending.count, self._columns)
        moved, to = redrawn(pending.places, pending.asked, right, self._random)
        places = pending.places.copy()
        places[moved] = -1
        for number, part in enumerate(parts):
            if part is not None:
                batch.put((places == number).nonzero()[0], part)
        for _ in range(_ROUNDS):
            if not len(moved):
                return batch
            self.redrawn += len(moved)
            moved, to = self._again(batch, shards, right, moved, to, steps)
            if len(moved) and not len(to):
                return _nothing(offers, steps)
        return WaitTimeoutError(
            f"shards did not keep what they offered, {_ROUNDS} times; try again"
        )

    def _again(
        self,
        batch: Batch,
        shards: list[Known],
        right: Float64Array,
        moved: Int64Array,
        to: Int64Array,
        steps: int,
    ) -> tuple[Int64Array, Int64Array]:
        """Fetch windows for the places ``moved`` from the shards ``to``.

        Those that have none any more lose their chance in ``right``.

        Returns:
            The places still without a window, and where to fetch them; nowhere: an empty ``to``.
        """
        numbers = np.unique(to).tolist()
        began = time.monotonic()
        answers = [
            shards[number].actor.draw.remote(int((to == number).sum()), steps) for number in numbers
        ]
        parts = self._answers([shards[number] for number in numbers], answers, began)
        left = []
        for number, part in zip(numbers, parts, strict=True):
            wanted = moved[to == number]
            if part is not None and len(part) == len(wanted):
                batch.put(wanted, part)
            else:
                right[number] = 0.0
                left.append(wanted)
        if not left:
            return moved[:0], to[:0]
        places = np.concatenate(left)
        if right.sum() <= 0:
            return places, to[:0]
        return places, drawn(len(places), right, self._random)

    # -- answers ---------------------------------------------------------------------------

    def _answers(
        self, shards: Sequence[Known], answers: Sequence[Any], began: float
    ) -> list[Part | None]:
        """What has been answered by the deadline; None for the others."""
        left = max(began + self._deadline_s - time.monotonic(), 0)
        try:
            return list(ray.get(list(answers), timeout=left))  # nearly always
        except (RayError, GetTimeoutError):
            pass  # one by one: it is to be seen whose it is
        left = max(began + self._deadline_s - time.monotonic(), 0)
        done, _ = ray.wait(list(answers), num_returns=len(answers), timeout=left)
        if not done:
            done, _ = ray.wait(list(answers), num_returns=1, timeout=_PATIENCE_S)
        in_time = set(done)
        return [
            self._answer(shard, answer, answer in in_time)
            for shard, answer in zip(shards, answers, strict=True)
        ]

    def _answer(self, shard: Known, answer: Any, in_time: bool) -> Part | None:
        if not in_time:
            self.late += 1
            shard.late = answer
            _LOGGER.warning("shard %s is slow; sampling goes on over the others", shard.name)
            return None
        try:
            part: Part = ray.get(answer, timeout=self._deadline_s)
            return part
        except RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except (RayError, GetTimeoutError):
            # Its process has died, or its node, or what it had answered was on that node.
            shard.away_until = time.monotonic() + _AWAY_S
            return None

    # -- which shards there are --------------------------------------------------------------

    def _present(self, now: float) -> list[Known]:
        """The shards that can be asked."""
        self._refresh(now)
        present = []
        for shard in self._known:
            if shard.late is not None and ray.wait([shard.late], timeout=0)[0]:
                shard.late = None  # dropped: its batch is long gone
            if shard.late is None and shard.away_until <= now:
                present.append(shard)
        return present

    def _refresh(self, now: float) -> None:
        """Take the keeper's news; wait for them, up to the deadline, where nothing is known yet."""
        if self._news is None and now - self._news_at >= _REFRESH_S:
            self._news = self._keeper.seen.remote(1, 0.0 if self._known else self._deadline_s)
            self._news_at = now
        if self._news is None:
            return
        wait_s = 0.0 if self._known else self._deadline_s
        if not ray.wait([self._news], timeout=wait_s)[0]:
            return
        news, self._news = self._news, None
        try:
            self._learn(told(news))
        except RayError as error:
            if not self._known:
                raise
            _LOGGER.warning("the keeper of shards does not answer: %s", error)

    def _learn(self, seen: Seen) -> None:
        before, self._seen = self._seen, seen
        if before is not None and before.version == seen.version:
            return
        if before is not None and seen.lost > before.lost:
            _LOGGER.warning(
                "lost: %d shards with %d transitions; sampling goes on over %d",
                seen.lost - before.lost,
                seen.transitions_lost - before.transitions_lost,
                len(seen.shards),
            )
        known = {(shard.name, shard.table): shard for shard in self._known}
        self._known = [
            known.get((name, table)) or Known(name, node, table, actor)
            for name, node, table, actor in seen.shards
        ]
        for shard, (_, _, _, actor) in zip(self._known, seen.shards, strict=True):
            shard.actor = actor

    def actors(self) -> dict[int, Any]:
        """The shards that are ready, by their tables' ids; asks the keeper only if it must."""
        with self._lock:
            self._refresh(time.monotonic())
            return {shard.table: shard.actor for shard in self._known}


def _nothing(offers: Sequence[Offer], steps: int) -> SampleError:
    """Why no shard offers a window."""
    if not any(offer.transitions for offer in offers):
        return EmptyTableError(
            f"all {len(offers)} shards are empty; add a sequence first, or pass timeout_s to wait "
            "for one"
        )
    longest = max(offer.longest for offer in offers)
    return NoWindowError(
        f"sequence_length is {steps}, and none of {len(offers)} shards has a window to offer, the "
        f"longest of their sequences having had {longest} transitions; ask for shorter windows, "
        "add longer sequences, or raise some priorities",
        sequence_length=steps,
        longest=longest,
    )
