"""The distributed table: what a process holds of it, and does with it."""

from __future__ import annotations

import atexit
import os
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from shmtable.adaptors import Adaptor
from shmtable.columns import Column
from shmtable.errors import (
    ArenaInUseError,
    ArenaNotFoundError,
    PriorityError,
    SequenceError,
    SpecError,
)
from shmtable.integrations.needed import needed
from shmtable.integrations.ray import storing
from shmtable.integrations.ray.draws import Batch
from shmtable.integrations.ray.held import READY_S, node
from shmtable.integrations.ray.keeper import NAMESPACE, Keeper, actor_name, told
from shmtable.integrations.ray.local import Current
from shmtable.integrations.ray.looking import Looking
from shmtable.integrations.ray.offers import refuse_other
from shmtable.integrations.ray.pacing import split_limiter
from shmtable.integrations.ray.sampling import Pending
from shmtable.integrations.ray.values import as_points, as_priorities
from shmtable.limiters import Limiter
from shmtable.protocols.arguments import as_int64, at_least_one, pairs
from shmtable.strategies import EjectionStrategy, SampleStrategy
from shmtable.table import ArrayMemoryTable
from shmtable.types import Int64Array, SampleResult
from shmtable.vector_writer import VectorWriter
from shmtable.writer import Writer

with needed("ray", extra="ray"):
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_WRITER = {
    "chunk": None,
    "overlap": 0,
    "tags": None,
    "priority": None,
    "timeout_s": 60.0,
    "unfinished": "flush",
}
_NOT_HERE = ("name", "directory", "storage_device", "limiter", "max_times_sampled", "device")


class DistributedMemoryTable(Looking):
    """A table of one shard per node: adding is local, a sample is drawn from all shards.

    A shard is an ordinary named table that an actor on its node answers for. Pass this object to
    Ray's tasks and actors, or ``attach`` to it by name: what travels is the name. It is used like
    an ``ArrayMemoryTable``.

    Identities are chosen by whoever adds. They have to be unique over the whole table, which is
    checked within a node only, since nothing of an add leaves it; ``check`` finds those that are
    in several shards. Those that writers make up are unique.

    Args:
        *columns: as for ``ArrayMemoryTable``.
        name: by which other programs on the cluster find it: up to 40 letters, digits, '.', '_'
            or '-'.
        maxlen: most transitions in each shard.
        sampler: uniform, or one that draws by weight. See ``ArrayMemoryTable``.
        ejector: of each shard.
        columns: instead of positional columns.
        nodes: Ray's ids of the nodes that get shards; None for all, those that join later too.
        shards_per_node: how many shards each of them gets.
        refill: a shard that takes the place of a lost one begins with that one's last file.
        deadline_s: how long a sample waits for a shard while others have answered.
        detached: whether the shards outlive the program that makes the table; then ``end`` ends it.
        limiter: over all shards together, ``MinSize`` or ``SampleToInsertRatio``; None for none.
        adaptors: for samples drawn through this object.
        device: where they are delivered; the CPU if None.
        **options: of each shard's table: ``length_key``, ``max_sequences``, ``on_duplicate``,
            ``layout``, ``pad``, ``seed``, ``preallocate``, ``lock``.

    Raises:
        SpecError: an option or column that cannot be, or that shards cannot have; no Ray.
        ArenaInUseError: a distributed table of this name is there.
    """

    def __init__(
        self,
        *columns_: Column,
        name: str,
        maxlen: int,
        sampler: SampleStrategy,
        ejector: EjectionStrategy,
        columns: Sequence[Column] | None = None,
        nodes: Sequence[str] | None = None,
        shards_per_node: int = 1,
        refill: bool = False,
        deadline_s: float = 2.0,
        detached: bool = False,
        limiter: Limiter | None = None,
        adaptors: Adaptor | Sequence[Adaptor] | None = None,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> None:
        self._hold(name, adaptors, device, deadline_s)
        each = at_least_one("shards_per_node", shards_per_node)
        refuse_other(sampler)
        if refused := sorted(set(options) & set(_NOT_HERE)):
            raise SpecError(
                f"{refused[0]} is no option of a distributed table's shards; leave it out"
            )
        if columns is not None:
            options["columns"] = columns
        given = {
            **{"maxlen": maxlen, "sampler": sampler, "ejector": ejector},
            **{"limiter": split_limiter(limiter), **options},
        }
        with ArrayMemoryTable(*columns_, **given) as like:  # refuses what cannot be
            given["columns"] = list(like.columns)
            given["classes"] = tuple(like._core.classes().values())
            about = {
                "columns": like.columns,
                "classes": given["classes"],
                "length_key": like.length_key,
                "layout": like.layout,
                "limiter": limiter,
                "keeps_priorities": like.keeps_priorities,
            }
        here = node()
        alive = [one["NodeID"] for one in ray.nodes() if one["Alive"]]
        count = each * len([one for one in alive if nodes is None or one in nodes])
        if not count:
            raise SpecError(
                f"nodes is {nodes!r:.80}, none of which is alive; give ids of ray.nodes(), or None "
                "for all"
            )
        # A table that ends with this program may as well be kept where this program is.
        strategy = NodeAffinitySchedulingStrategy(here, soft=detached)
        made = ray.remote(Keeper).options(
            name=actor_name(name),
            namespace=NAMESPACE,
            lifetime="detached" if detached else None,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,  # whoever asks it waits until it is there again
            max_concurrency=64,
            scheduling_strategy=strategy,
        )
        try:
            self._keeper_ = made.remote(
                name, secrets.token_hex(4), given, about, nodes, each, refill, detached, limiter
            )
        except ValueError as error:
            raise ArenaInUseError(
                f"a distributed table {name!r} is there already; attach to it, end() it, or choose "
                "another name",
                name=name,
            ) from error
        self._owner = 0 if detached else os.getpid()
        seen = told(self._keeper_.seen.remote(count, READY_S))
        if not seen.shards:
            self.end()
            raise ArenaNotFoundError(
                f"none of {count} shards is ready after {READY_S:g} s; see Ray's log of the actors"
            )
        if not detached:
            atexit.register(self.close)  # which keeps it until then, as others use it by name

    # -- adding, in this process's own node ---------------------------------------------------

    def add_sequence(
        self,
        identity: int,
        sequence: Mapping[str, Any],
        *,
        priority: Any = None,
        timeout_s: float | None = 60.0,
    ) -> None:
        """Add a sequence to this node's shard; see ``ArrayMemoryTable.add_sequence``.

        Raises:
            ArenaNotFoundError: this node has no shard.
        """
        identity = as_int64("identity", identity)

        def adding(table: ArrayMemoryTable) -> None:
            table.add_sequence(identity, sequence, priority=priority, timeout_s=timeout_s)

        self._here().add(identity, adding)

    def add_sequences(
        self,
        sequences: Iterable[tuple[int, Mapping[str, Any]]],
        *,
        timeout_s: float | None = 60.0,
    ) -> None:
        """Add many sequences; see ``ArrayMemoryTable.add_sequences``."""
        local = self._here()
        several: dict[int, list[tuple[int, Mapping[str, Any]]]] = {}
        for identity, sequence in pairs(sequences):
            several.setdefault(id(local.table(identity)), []).append((identity, sequence))
        for given in several.values():

            def adding(table: ArrayMemoryTable, given: Any = given) -> None:
                table.add_sequences(given, timeout_s=timeout_s)

            local.add(given[0][0], adding)

    def writer(self, identity: int | None = None, **options: Any) -> Writer:
        """Make a writer that adds to this node's shard; see ``ArrayMemoryTable.writer``.

        Args:
            identity: of the first sequence; the next ones count on from it. None makes them up:
                negative numbers that nobody else makes up, on any node.
            **options: as for ``ArrayMemoryTable.writer``.
        """
        identity = self._range() if identity is None else as_int64("identity", identity)
        options = {**_WRITER, **options}
        return Writer(Current(self._local, identity, self.adaptors), identity=identity, **options)  # type: ignore[arg-type]

    def vector_writer(self, count: int, *, autoreset: Any, **options: Any) -> VectorWriter:
        """Make a writer for environments that step together; see ``ArrayMemoryTable``."""
        given = options.pop("identity", None)
        identity = self._range() if given is None else as_int64("identity", given)
        options = {"tags": None, **options, "identity": identity, "autoreset": autoreset}
        return VectorWriter(Current(self._local, identity, self.adaptors), count, **options)  # type: ignore[arg-type]

    def _range(self) -> int:
        return int(told(self._keeper().identities.remote()))

    # -- sampling, over all shards ------------------------------------------------------------

    def sample(
        self, count: int, sequence_length: int, *, timeout_s: float | None = 0.0
    ) -> SampleResult:
        """Draw ``count`` windows of ``sequence_length`` transitions from all shards.

        Each window of the whole table is equally likely, or, with a sampler that draws by weight,
        likely in proportion to its weight; ``weights`` are those of the whole table. A shard that
        does not answer within ``deadline_s`` gives nothing to this sample. May be called by
        several threads.

        Args:
            count: windows, at least 1.
            sequence_length: transitions per window, at least 1.
            timeout_s: how long to wait for something to sample; 0 not at all, None for ever. Where
                no shard answers, or none is known yet, ``deadline_s`` at the least.

        Returns:
            As ``ArrayMemoryTable.sample``; ``points`` is a ``ShardedPoints``.

        Raises:
            EmptyTableError, NoWindowError: nothing to sample.
            WaitTimeoutError: nothing came in time, or no shard answers; of the limiter, even
                without waiting, a ``RateLimitedError``.
            SpecError: under this limiter both sides might wait for ever.
        """
        count = at_least_one("count", count)
        steps = at_least_one("sequence_length", sequence_length)
        self._admit(count, steps, timeout_s)
        try:
            result = self._sampling().sample(count, steps, timeout_s)
        except BaseException:
            self._give_back(count, steps)
            raise
        return self._delivered(result, count, steps)

    def batches(
        self,
        count: int,
        sequence_length: int,
        *,
        ahead: int = 4,
        timeout_s: float | None = 60.0,
    ) -> Iterator[SampleResult]:
        """Sample again and again, with batches asked for ahead.

        While one is learned from, the shards draw the next ones. A batch is of the table as it was
        when it was asked for.

        Args:
            count, sequence_length: as for ``sample``.
            ahead: so many batches at most are asked for and not taken yet, at least 1. From 4 on,
                several come with one answer.
            timeout_s: how long to wait for something to sample, each time.
        """
        count = at_least_one("count", count)
        steps = at_least_one("sequence_length", sequence_length)
        ahead = at_least_one("ahead", ahead)
        # An answer costs about the same whatever is in it, so several batches are asked for at
        # once; not with a limiter, to which that would be one large sample.
        each = 1 if self.limiter is not None else max(ahead // 2, 1)
        asked: deque[Pending] = deque()
        try:
            while True:
                while len(asked) < max(ahead // each, 1) and self._may_ask(
                    count, steps, timeout_s, asked
                ):
                    asked.append(self._sampling().ask(count * each, steps))
                found = self._sampling().gather(asked[0])
                if isinstance(found, Batch):
                    several = found.results(count)
                else:  # what there is to wait for, or to raise
                    several = iter([self._sampling().sample(count, steps, timeout_s)])
                asked.popleft()
                for batch in several:
                    yield self._delivered(batch, count, steps)
        finally:
            for _ in asked:  # admitted, and taken by nobody
                self._give_back(count, steps)

    def _delivered(self, result: SampleResult, count: int, steps: int) -> SampleResult:
        if self.device.type != "cpu":
            for name, column in result.items():
                result[name] = column.to(self.device)
            if result.weights is not None:
                result.weights = result.weights.to(self.device)
        for adaptor in self.adaptors:
            result = adaptor(result, count, steps)
        return result

    def can_sample(self, count: int, sequence_length: int) -> bool:
        """Whether such a sample could be had now, without waiting."""
        steps = at_least_one("sequence_length", sequence_length)
        at_least_one("count", count)
        return any(part.offer.weight > 0 for part in self._all("draw", 0, steps))

    def reseed(self, seed: int | Sequence[int]) -> None:
        """Draw from here on as ``seed`` says: which shards, and which of their windows.

        The shards' own streams are every learner's, so this makes samples repeatable only while
        one process samples and nobody adds.
        """
        numbers = [seed] if isinstance(seed, int) else list(seed)
        self._sampling().reseed(numbers)
        actors = [actor for _, _, _, _, actor in self._states()]
        asked = [actor.reseed.remote([*numbers, place]) for place, actor in enumerate(actors)]
        storing.answered(asked, "it was reseeded")

    # -- writing back --------------------------------------------------------------------------

    def update_priorities(self, points: Any, priorities: Any) -> int:
        """Give windows that were sampled new priorities; each goes back to its shard.

        Args:
            points: ``.points`` of a sample of this table, drawn by any process.
            priorities: as for ``ArrayMemoryTable.update_priorities``.

        Returns:
            How many windows it was applied to; those whose sequence, or whose shard, has left are
            passed over, and a shard that does not answer in time is not counted.

        Raises:
            SpecError: these are no points of a distributed table.
            PriorityError: a negative number, NaN, a wrong shape, or a table without priorities.
        """
        points = as_points(points)
        if not self.keeps_priorities:
            raise PriorityError(
                "the shards keep no priorities; make the table with "
                "sampler=PrioritizedSampleStrategy()"
            )
        values = as_priorities(priorities, len(points))
        highest = float(values.max(initial=0.0))
        return self._back(points, "update_priorities", lambda places: (values[places], highest))

    def update(self, points: Any, column: str, values: Any) -> int:
        """Write values back into the windows of a sample; see ``ArrayMemoryTable.update``.

        Returns:
            How many windows were still there and have been written, as far as shards answer.
        """
        points = as_points(points)
        rows = torch.as_tensor(values).detach().cpu()
        if not len(points) or len(rows) % len(points):
            raise SequenceError(
                f"values have shape {tuple(rows.shape)} for {len(points)} windows; give "
                "(count, sequence_length, *shape) or (count * sequence_length, *shape)"
            )
        each = len(rows) // len(points)
        rows = rows.reshape(len(points), each, *rows.shape[1:])

        def mine(places: Int64Array) -> tuple[str, torch.Tensor]:
            return column, rows[torch.from_numpy(places)].flatten(0, 1)

        return self._back(points, "update", mine)

    def set_sampler(self, **settings: float) -> None:
        """Set attributes of every shard's sampler, such as ``beta``."""
        asked = [a.set_sampler.remote(settings) for _, _, _, _, a in self._states()]
        storing.answered(asked, "its sampler was set")
