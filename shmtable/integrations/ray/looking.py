"""All shards asked at once: how they are, what they hold, and what goes into files."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shmtable.errors import RateLimitedError, UnknownIdentityError
from shmtable.formats import TableSerializationVersion
from shmtable.integrations.needed import needed
from shmtable.integrations.ray import storing
from shmtable.integrations.ray.held import SLICE_S, Held
from shmtable.integrations.ray.keeper import told
from shmtable.integrations.ray.values import DistributedStats, ShardedPoints, ShardStats
from shmtable.protocols.arguments import as_int64
from shmtable.types import Finding, Int64Array, Stats

with needed("ray", extra="ray"):
    import ray
    from ray.exceptions import RayError, RayTaskError

State = tuple[str, str, str, int, Any]
_ANSWER_S = 20.0
_SETTLE_S, _PAUSE_S = 20.0, 0.05


class Looking(Held):
    """What is asked of every shard, and what comes of their answers."""

    # -- watching --------------------------------------------------------------------------

    def size(self) -> int:
        """Number of transitions in all shards that answer."""
        return sum(transitions for _, transitions in self._all("describe"))

    def __len__(self) -> int:
        return self.size()

    def __bool__(self) -> bool:
        """True, also while it is empty: ``table or another`` is this table."""
        return True

    def full(self) -> bool:
        """Whether adding may eject: whether some shard is saturated."""
        return any(self._all("full"))

    def stats(self) -> DistributedStats:
        """How the shards are, one by one and together."""
        states = self._settled()
        asked = [
            actor.stats.remote() if ready == "ready" else None for _, _, ready, _, actor in states
        ]
        found: list[Stats | None] = [None] * len(states)
        ends = {answer: place for place, answer in enumerate(asked) if answer is not None}
        for answer, stats in self._answered(list(ends)).items():
            found[ends[answer]] = stats
        seen = told(self._keeper().seen.remote())
        sampling = self._sampling_
        return DistributedStats(
            tuple(
                ShardStats(name, node, state if told or state != "ready" else "silent", table, told)
                for (name, node, state, table, _), told in zip(states, found, strict=True)
            ),
            shards_lost=seen.lost,
            transitions_lost=seen.transitions_lost,
            replies_late=0 if sampling is None else sampling.late,
            windows_redrawn=0 if sampling is None else sampling.redrawn,
            limiter="" if self.limiter is None else repr(self.limiter),
        )

    def check(self) -> list[Finding]:
        """Walk every invariant of every shard; and find identities that are in several."""
        states = [state for state in self._settled() if state[2] == "ready"]
        asked = [actor.check.remote() for _, _, _, _, actor in states]
        findings = [
            Finding(finding.rule, f"{name}: {finding.detail}")
            for (name, *_), several in zip(
                states, storing.answered(asked, "it was checked"), strict=True
            )
            for finding in several
        ]
        found, times = np.unique(self.identities(), return_counts=True)
        findings += [
            Finding("identities are unique", f"identity {identity} is in {several} shards")
            for identity, several in zip(found[times > 1], times[times > 1], strict=True)
        ]
        return findings

    # -- single sequences ------------------------------------------------------------------

    def identities(self) -> Int64Array:
        """int64 [n], the identities of all sequences: shard by shard, in the order of insertion."""
        found = self._all("identities")
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def sequence(self, identity: int) -> dict[str, Tensor]:
        """A copy of one sequence; see ``ArrayMemoryTable.sequence``.

        Raises:
            UnknownIdentityError: no shard that answers has it.
        """
        rows = self._first("sequence", as_int64("identity", identity))
        dtypes = {column.name: column.dtype.torch for column in self.columns}
        # Ray's memory cannot be written to, and goes with its reference: a copy.
        return {name: torch.from_numpy(row.copy()).view(dtypes[name]) for name, row in rows.items()}

    def remove(self, identity: int) -> None:
        """Remove one sequence.

        Raises:
            UnknownIdentityError: no shard that answers has it.
        """
        self._first("remove", as_int64("identity", identity))

    def clear(self) -> None:
        """Remove all sequences; each shard for everybody at once, one after the other."""
        storing.answered([actor.clear.remote() for *_, actor in self._states()], "it was cleared")
        told(self._keeper().begin_pacing.remote())

    # -- files -----------------------------------------------------------------------------

    def store(
        self,
        path: str | os.PathLike[str],
        version: TableSerializationVersion = TableSerializationVersion.LATEST,
    ) -> bool:
        """Write each shard to a file beside ``path``, and then ``path + ".shards.json"``.

        That one names the others, and is put in place last: whatever is cut off, there is a whole
        set of files, the new or the old one. Each file is of one moment; the moments differ by
        what the shards take. Returns True.

        Args:
            path: without suffix, in a folder that all nodes see under this name.
            version: the latest only.

        Raises:
            OSError: no space, or no right to write there.
            TableFileError: another version; a folder that is not the same on all nodes.
            WaitTimeoutError: a shard does not answer, or was lost meanwhile.
        """
        storing.refuse_version(version, TableSerializationVersion.LATEST)
        storing.store(self._keeper(), path)
        return True

    def restore(
        self,
        path: str | os.PathLike[str],
        override_version: TableSerializationVersion | None = None,
        *,
        strict: bool = True,
    ) -> bool:
        """Replace the content by that of the files that ``path + ".shards.json"`` names.

        All files are checked before any shard takes one, so what is damaged changes nothing. The
        number of shards may be another one than was stored: too many files are put together, where
        what is too much is ejected. Returns True.

        Args:
            path: as given to ``store``.
            override_version: none but None or the latest.
            strict: as for ``ArrayMemoryTable.restore``.

        Raises:
            TableFileError: a file is missing, damaged, of a later version, unsafe, or of another
                table's columns.
            WaitTimeoutError: a shard does not answer, or was lost meanwhile; what it held, and what
                the others hold by then, may be old or new.
        """
        latest = TableSerializationVersion.LATEST
        storing.refuse_version(override_version or latest, latest)
        storing.restore(self._keeper(), path, strict)
        told(self._keeper().begin_pacing.remote())
        return True

    # -- the limiter -----------------------------------------------------------------------

    def _may_ask(
        self, count: int, steps: int, timeout_s: float | None, asked: Sequence[Any]
    ) -> bool:
        """Whether the limiter admits another batch; the first is waited for."""
        try:
            self._admit(count, steps, 0.0 if asked else timeout_s)
        except RateLimitedError:
            if not asked:
                raise
            return False
        return True

    def _admit(self, count: int, steps: int, timeout_s: float | None) -> None:
        """Ask the keeper whether the limiter admits a sample, where there is one."""
        if self.limiter is None:
            return
        ends = math.inf if timeout_s is None else time.monotonic() + timeout_s
        left = 0.0
        reason = "?"
        while reason and left >= 0:
            left = ends - time.monotonic()
            asked = self._keeper().admit.remote(count, steps, min(max(left, 0.0), SLICE_S))
            reason = told(asked)
        if reason:
            waited = f"waited {timeout_s:g} s: " if timeout_s else ""
            raise RateLimitedError(f"{waited}{reason}", timeout_s=timeout_s)

    def _give_back(self, count: int, steps: int) -> None:
        # Nobody is there to be told where a program is ending.
        if self.limiter is not None and not self._closed and ray.is_initialized():
            with suppress(RayError):
                self._keeper().give_back.remote(count, steps)

    # -- pieces ----------------------------------------------------------------------------

    def _states(self) -> list[State]:
        return [state for state in self._every() if state[4] is not None]

    def _every(self) -> list[State]:
        found: list[State] = told(self._keeper().states.remote())
        return found

    def _settled(self) -> list[State]:
        """The states, when those shards have been heard that an earlier keeper has known."""
        ends = time.monotonic() + _SETTLE_S
        states = self._every()
        while any(s[2] == "starting" and s[3] for s in states) and time.monotonic() < ends:
            time.sleep(_PAUSE_S)
            states = self._every()
        return [state for state in states if state[4] is not None]

    def _all(self, what: str, *given: Any) -> list[Any]:
        """The answers of all shards that do answer, in the keeper's order."""
        asked = [
            getattr(actor, what).remote(*given)
            for _, _, state, _, actor in self._settled()
            if state == "ready"
        ]
        return list(self._answered(asked).values())

    def _answered(self, asked: Sequence[Any]) -> dict[Any, Any]:
        """By reference, what has been answered; a dead shard's answer is passed over.

        Raises:
            ShmTableError: whatever a shard has raised.
        """
        if not asked:
            return {}
        done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
        found = {}
        for answer in done:
            try:
                found[answer] = ray.get(answer)
            except RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except RayError:
                continue
        return {answer: found[answer] for answer in asked if answer in found}

    def _first(self, what: str, identity: int) -> Any:
        """The answer of the one shard that has this sequence."""
        asked = [getattr(actor, what).remote(identity) for *_, actor in self._states()]
        failed: BaseException | None = None
        for answer in asked:
            try:
                return ray.get(answer, timeout=_ANSWER_S)
            except RayTaskError as error:
                cause = error.as_instanceof_cause()
                if not isinstance(cause, UnknownIdentityError):
                    failed = failed or cause  # another one may have it all the same
            except RayError:
                continue
        if failed is not None:
            raise failed
        raise UnknownIdentityError(
            f"identity {identity} is in no shard that answers; identities() lists those there are",
            identity=identity,
        )

    def _back(self, points: ShardedPoints, what: str, mine: Callable[[Int64Array], Any]) -> int:
        """Let each shard do something with its own points; the sum of their answers."""
        actors = self._sampling().actors()
        asked = []
        for source, table in enumerate(points.tables):
            places, own = points.of(source)
            actor = actors.get(table)
            if actor is not None and len(places):
                fields = own.slots, own.offsets, own.generations, own.identities
                given = (*fields, own.starts, own.lengths)
                asked.append(getattr(actor, what).remote(given, *mine(places)))
        return sum(self._answered(asked).values())
