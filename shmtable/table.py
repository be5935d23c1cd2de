"""The table: joins the parts, owns no algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from shmtable.adaptors import Adaptor
from shmtable.columns import Column, CpuStorage
from shmtable.errors import SpecError
from shmtable.formats import TableSerializationVersion
from shmtable.interface import MemoryTable
from shmtable.limiters import Limiter
from shmtable.pacing import Steered
from shmtable.protocols import Core, add, lookup, sample
from shmtable.protocols.arguments import as_int64, at_least_one, pairs
from shmtable.protocols.device import storage_backend
from shmtable.protocols.hold import checked
from shmtable.protocols.options import build
from shmtable.strategies import EjectionStrategy, SampleStrategy
from shmtable.types import Int64Array, SampleResult
from shmtable.vector_writer import VectorWriter
from shmtable.writer import Writer

__all__ = ["ArrayMemoryTable", "MemoryTable", "TableSerializationVersion"]


class ArrayMemoryTable(Steered):
    """A replay table in shared memory.

    Any number of processes may add and sample at the same time. Pass the table to
    ``torch.multiprocessing`` processes (started by fork, spawn or forkserver) or through their
    queues, or give it a ``name`` and ``attach`` to it from anywhere. A process may die at any
    moment without disturbing the others.

    ``len`` counts transitions, yet an empty table is true: ``table or another`` is the table.

    Args:
        *columns: the columns; or give them as ``columns=[...]``.
        maxlen: most transitions in the table, at least 1; whole sequences are ejected for it.
        sampler: chooses the windows of a sample.
        ejector: chooses the sequences that go when there is no room.
        length_key: the column whose rows say how many transitions a sequence has.
        adaptors: called on every sample, in order, as
            ``adaptor(result, count, sequence_length) -> result``.
        device: where samples are delivered; None for where the columns are.
        storage_device: where the columns are: "cpu" for shared memory, "cuda" or "cuda:0" for a
            device's, which is taken whole at creation. Such a table is passed to processes that
            its maker starts by spawn or forkserver, who are done before its maker ends.
        columns: instead of positional columns.
        name: makes the table attachable by name, until it is closed by its creator.
        directory: an existing folder: the table is a file there, which stays. Needs ``name``.
        max_sequences: most sequences in the table; ``maxlen`` if not given.
        on_duplicate: what ``add_sequence`` does with a live identity: "error" refuses it,
            "replace" puts the new sequence in the old one's place.
        layout: "flat" samples have one row per transition, ``(count * sequence_length, *shape)``;
            "batch_time" ones have ``(count, sequence_length, *shape)``.
        pad: None: only sequences as long as the window are sampled. "zero" or "edge": shorter
            ones too, filled up with zeros or with their last transition, and samples get a
            boolean column ``mask``, true on real transitions.
        limiter: when adds and samples may proceed; None for always. See ``limiter``.
        max_times_sampled: a sequence leaves when so many windows of it have been handed out.
        seed: root of all random streams; every process derives one of its own. None draws one.
        preallocate: take the memory of a full table now, instead of as it fills.
        lock: "robust" (a process-shared mutex that survives its holder's death) or "portable"
            (an advisory file lock); None chooses the best this system has.

    Raises:
        SpecError: an option or column that cannot be.
        ArenaInUseError: the name is taken by a living process.
        SharedMemoryError: no memory, or not on the device.
        DeviceMemoryError: ``storage_device`` in a process that was forked after CUDA was started.
    """

    def __init__(
        self,
        *columns_: Column,
        maxlen: int,
        sampler: SampleStrategy,
        ejector: EjectionStrategy,
        length_key: str = "actions",
        adaptors: Adaptor | Sequence[Adaptor] | None = None,
        device: torch.device | str | None = None,
        storage_device: torch.device | str = "cpu",
        columns: Sequence[Column] | None = None,
        name: str | None = None,
        directory: str | None = None,
        max_sequences: int | None = None,
        on_duplicate: str = "error",
        layout: str = "flat",
        pad: str | None = None,
        limiter: Limiter | None = None,
        max_times_sampled: int | None = None,
        seed: int | None = None,
        preallocate: bool = False,
        lock: str | None = None,
    ) -> None:
        if columns is not None and columns_:
            raise SpecError("columns are given twice; pass them one by one or as columns=[...]")
        backend = storage_backend(storage_device, directory)
        schema, options = build(
            columns_ if columns is None else columns,
            length_key=length_key,
            maxlen=maxlen,
            max_sequences=max_sequences,
            on_duplicate=on_duplicate,
            layout=layout,
            pad=pad,
            max_times_sampled=max_times_sampled,
            seed=seed,
            storage_device=None if backend is None else str(backend.device),
        )
        limiter = checked(limiter, sampler, options)
        if device is None:
            device = "cpu" if backend is None else backend.device
        self._deliver(adaptors, device)
        self._open = Core.create(
            schema,
            sampler,
            ejector,
            options,
            name=name,
            directory=directory,
            lock=lock,
            preallocate=preallocate,
            limiter=limiter,
            backend=backend,
        )

    # -- adding and sampling ---------------------------------------------------------------

    def add_sequence(
        self,
        identity: int,
        sequence: Mapping[str, Any],
        *,
        priority: Any = None,
        timeout_s: float | None = 60.0,
    ) -> None:
        """Add a fully terminated sequence: whole, or not at all.

        Args:
            identity: any int64, not in the table yet (see ``on_duplicate``).
            sequence: for each stored column an array, tensor or list with one row per transition,
                and those rows more that virtual columns look ahead (a next observation: one);
                any column may bring one more than the length. For each tag column one value.
            priority: for a prioritised sampler, one number or one per transition; by default the
                highest it has seen.
            timeout_s: how long to wait for the limiter, and while the room left is being written
                by others; None for ever. Except in a queue, sequences are ejected at once.

        Raises:
            SequenceError: it does not fit the columns; nothing has changed.
            DuplicateIdentityError: the identity is in the table; nothing has changed.
            PriorityError: no priority, or the table keeps none; nothing has changed.
            SharedMemoryError: no memory for it.
            WaitTimeoutError: no room in time; of the limiter, a ``RateLimitedError``.
            SpecError: under this limiter both sides might wait for ever; nothing has changed.
        """
        add(self._core, ((as_int64("identity", identity), sequence),), timeout_s, priority)

    def add_sequences(
        self,
        sequences: Iterable[tuple[int, Mapping[str, Any]]],
        *,
        timeout_s: float | None = 60.0,
    ) -> None:
        """Add many sequences with few holds of the lock.

        All of them are checked before the first is added. Each is whole or absent at any moment;
        an error while adding leaves those before it in the table.

        Args:
            sequences: pairs of identity and sequence.
            timeout_s: as for ``add_sequence``, for each wait.
        """
        add(self._core, pairs(sequences), timeout_s)

    def sample(
        self, count: int, sequence_length: int, *, timeout_s: float | None = 0.0
    ) -> SampleResult:
        """Draw ``count`` windows of ``sequence_length`` consecutive transitions.

        Args:
            count: windows, at least 1.
            sequence_length: transitions per window, at least 1.
            timeout_s: how long to wait for something to sample; 0 raises at once, None waits for
                ever.

        Returns:
            Column name to tensor: ``(count * sequence_length, *shape)``, each window in one piece
            and in time order (see ``layout``); tags and per-window columns ``(count, *shape)``.
            Always copies, and always exactly ``count`` windows; a row's values are contiguous,
            its rows need not be. ``.points`` says where the windows lie.

        Raises:
            EmptyTableError: the table is empty.
            NoWindowError: no sequence is long enough.
            WaitTimeoutError: nothing to sample came in time; of the limiter, even without
                waiting, a ``RateLimitedError``.
            SpecError: under this limiter both sides might wait for ever.
        """
        count = at_least_one("count", count)
        sequence_length = at_least_one("sequence_length", sequence_length)
        core = self._core
        if self._deliveries is not None and isinstance(core.storage, CpuStorage):
            result = self._deliveries.deliver(
                lambda: sample(core, count, sequence_length, timeout_s), core.storage
            )
        else:
            result = sample(core, count, sequence_length, timeout_s)
            if core.memory is not None and self.device != core.memory.backend.device:
                # On a stream that does not wait for the caller's.
                with core.memory.backend.working():
                    _move(result, self.device)
            elif core.memory is None and not self._on_cpu:
                _move(result, self.device)
        for adaptor in self.adaptors:
            result = adaptor(result, count, sequence_length)
        return result

    # -- step by step ----------------------------------------------------------------------

    def writer(
        self,
        identity: int | None = None,
        *,
        chunk: int | None = None,
        overlap: int = 0,
        tags: Mapping[str, Any] | None = None,
        priority: Any = None,
        timeout_s: float | None = 60.0,
        unfinished: str = "flush",
    ) -> Writer:
        """Make a writer, which takes single steps and adds whole episodes.

        Args:
            identity: of the first sequence; the next ones count on from it. None makes them up:
                negative numbers that no other process makes up.
            chunk: longer episodes become several sequences of so many transitions, and a rest.
            overlap: transitions that two such sequences share, less than ``chunk``.
            tags: by name, values of all sequences; ``end`` may give others.
            priority: of every sequence, for a prioritised sampler: a number, or a function that
                gets the sequence and gives what ``add_sequence`` takes.
            timeout_s: how long to wait for the limiter, and for room, as ``add_sequence``.
            unfinished: what becomes of an open episode when the writer is closed, when nobody has
                it any more, and when the process ends: "flush" adds it as truncated, "drop"
                forgets it. Either is logged. An exception that leaves the ``with`` block always
                drops it.

        Raises:
            SpecError: an option that cannot be.
            PriorityError: a priority that cannot be, or that no strategy keeps.
        """
        return Writer(
            self,
            identity=identity,
            chunk=chunk,
            overlap=overlap,
            tags=tags,
            priority=priority,
            timeout_s=timeout_s,
            unfinished=unfinished,
        )

    def vector_writer(
        self,
        count: int,
        *,
        autoreset: Any,
        tags: Mapping[str, Sequence[Any]] | None = None,
        **options: Any,
    ) -> VectorWriter:
        """Make a writer for environments that step together.

        Args:
            count: environments (N).
            autoreset: how they begin anew, ``envs.metadata["autoreset_mode"]`` of Gymnasium, or
                its name: "next_step", "same_step", "disabled".
            tags: by name, one value for each environment.
            **options: as for ``writer``: ``identity``, ``chunk``, ``overlap``, ``priority``,
                ``timeout_s``, ``unfinished``.

        Raises:
            SpecError, PriorityError: as ``writer``.
        """
        return VectorWriter(self, count, autoreset=autoreset, tags=tags, **options)

    # -- looking up and removing -----------------------------------------------------------

    def size(self) -> int:
        """Number of transitions in the table."""
        return self._core.size()

    def __len__(self) -> int:
        return self._core.size()

    def __bool__(self) -> bool:
        # A place to put things, which may be empty for now: ``table or another`` is this one, or
        # a program would go on with a table of its own that nobody else knows.
        return True

    def full(self) -> bool:
        """Whether the table has reached saturation: new adds may eject.

        True from the first ejection for room on, until ``clear`` or ``resize``. It does not mean
        ``size() == maxlen``, because whole sequences are ejected.
        """
        return self._core.is_full()

    @property
    def maxlen(self) -> int:
        """Most transitions in the table."""
        return self._core.maxlen()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, in declared order."""
        return self._core.schema.columns

    def identities(self) -> Int64Array:
        """int64 [n], the identities of all sequences in the order of their insertion."""
        return lookup.identities(self._core)

    def sequence(self, identity: int) -> dict[str, Tensor]:
        """A copy of one sequence: its stored columns [rows, *shape], and its tags [*shape].

        As it was added, so it can be added again.

        Raises:
            UnknownIdentityError: no live sequence has this identity.
        """
        return lookup.sequence(self._core, as_int64("identity", identity))

    def remove(self, identity: int) -> None:
        """Remove one sequence.

        Raises:
            UnknownIdentityError: no live sequence has this identity.
        """
        lookup.remove(self._core, as_int64("identity", identity))

    def clear(self) -> None:
        """Remove all sequences, for everybody at once."""
        lookup.clear(self._core)

    def resize(self, new_size: int) -> None:
        """Raise ``maxlen``, for all attached processes, without copying anything.

        Args:
            new_size: transitions; at least the present ``maxlen``.

        Raises:
            CapacityError: smaller, or beyond the address space taken at creation; of a table on
                a device, any other than the present one.
        """
        lookup.resize(self._core, at_least_one("new_size", new_size))


def _move(result: SampleResult, device: torch.device) -> None:
    # Back to the CPU only once it has arrived: nobody would wait for it there.
    later = device.type != "cpu"
    for name, column in result.items():
        result[name] = column.to(device, non_blocking=later)
    if result.weights is not None:
        result.weights = result.weights.to(device, non_blocking=later)
