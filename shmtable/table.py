"""The table: joins the parts, owns no algorithm."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from shmtable.adaptors import Adaptor
from shmtable.columns import Column
from shmtable.errors import ClosedError, SpecError
from shmtable.formats import Progress, TableSerializationVersion
from shmtable.interface import MemoryTable
from shmtable.protocols import Core, add, disk, lookup, restore, sample, store
from shmtable.protocols.arguments import as_adaptors, as_device, as_int64, at_least_one, pairs
from shmtable.protocols.options import build
from shmtable.shm.arena import Arena
from shmtable.strategies import EjectionStrategy, SampleStrategy
from shmtable.types import Finding, Int64Array, SampleResult, Stats

__all__ = ["ArrayMemoryTable", "MemoryTable", "TableSerializationVersion"]


class ArrayMemoryTable:
    """A replay table in shared memory.

    Any number of processes may add and sample at the same time. Pass the table to
    ``torch.multiprocessing`` processes (started by fork, spawn or forkserver) or through their
    queues, or give it a ``name`` and ``attach`` to it from anywhere. A process may die at any
    moment without disturbing the others.

    Args:
        *columns: the columns; or give them as ``columns=[...]``.
        maxlen: most transitions in the table, at least 1; whole sequences are ejected for it.
        sampler: chooses the windows of a sample.
        ejector: chooses the sequences that go when there is no room.
        length_key: the column whose rows say how many transitions a sequence has.
        adaptors: called on every sample, in order, as
            ``adaptor(result, count, sequence_length) -> result``.
        device: where samples are delivered.
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
        seed: root of all random streams; every process derives one of its own. None draws one.
        preallocate: take the memory of a full table now, instead of as it fills.
        lock: "robust" (a process-shared mutex that survives its holder's death) or "portable"
            (an advisory file lock); None chooses the best this system has.

    Raises:
        SpecError: an option or column that cannot be.
        ArenaInUseError: the name is taken by a living process.
        SharedMemoryError: no memory.
    """

    adaptors: list[Adaptor]
    device: torch.device

    def __init__(
        self,
        *columns_: Column,
        maxlen: int,
        sampler: SampleStrategy,
        ejector: EjectionStrategy,
        length_key: str = "actions",
        adaptors: Adaptor | Sequence[Adaptor] | None = None,
        device: torch.device | str = "cpu",
        columns: Sequence[Column] | None = None,
        name: str | None = None,
        directory: str | None = None,
        max_sequences: int | None = None,
        on_duplicate: str = "error",
        layout: str = "flat",
        pad: str | None = None,
        seed: int | None = None,
        preallocate: bool = False,
        lock: str | None = None,
    ) -> None:
        if columns is not None and columns_:
            raise SpecError("columns are given twice; pass them one by one or as columns=[...]")
        schema, options = build(
            columns_ if columns is None else columns,
            length_key=length_key,
            maxlen=maxlen,
            max_sequences=max_sequences,
            on_duplicate=on_duplicate,
            layout=layout,
            pad=pad,
            seed=seed,
        )
        self._deliver(adaptors, device)
        self._open: Core | None = Core.create(
            schema,
            sampler,
            ejector,
            options,
            name=name,
            directory=directory,
            lock=lock,
            preallocate=preallocate,
        )

    @classmethod
    def attach(
        cls,
        name: str,
        *,
        directory: str | None = None,
        recover: bool = False,
        adaptors: Adaptor | Sequence[Adaptor] | None = None,
        device: torch.device | str | None = None,
    ) -> ArrayMemoryTable:
        """Open a named table that another process of this user has made.

        Args:
            name: as given at creation.
            directory: as given at creation.
            recover: take also a table on disk that was in use when the machine stopped; what
                there is of it is kept, and a warning says how much.
            adaptors: for samples drawn through this object.
            device: where they are delivered; the CPU if None.

        Raises:
            ArenaNotFoundError: no such table.
            ArenaPermissionError: it belongs to somebody else.
            ArenaVersionError: made by an incompatible version.
            ArenaDamagedError: the file is no sound table.
            ArenaUncleanError: in use when the machine stopped; see ``recover``.
        """
        table = cls.__new__(cls)
        table._deliver(adaptors, device or "cpu")
        table._open = disk.attach(name, directory, recover)
        return table

    def _deliver(self, adaptors: Any, device: torch.device | str) -> None:
        self.adaptors = as_adaptors(adaptors)
        self.device = as_device(device)

    @property
    def _core(self) -> Core:
        core = self._open
        if core is None:
            raise ClosedError("the table is closed; make or attach it again to use it")
        return core

    # -- adding and sampling ---------------------------------------------------------------

    def add_sequence(
        self, identity: int, sequence: Mapping[str, Any], *, timeout_s: float | None = 60.0
    ) -> None:
        """Add a fully terminated sequence: whole, or not at all.

        Args:
            identity: any int64, not in the table yet (see ``on_duplicate``).
            sequence: for each stored column an array, tensor or list with one row per transition,
                and those rows more that virtual columns look ahead (a next observation: one);
                any column may bring one more than the length. For each tag column one value.
            timeout_s: how long to wait while the room left is being written by others; None for
                ever. Sequences in the table are ejected at once and never waited for.

        Raises:
            SequenceError: it does not fit the columns; nothing has changed.
            DuplicateIdentityError: the identity is in the table; nothing has changed.
            SharedMemoryError: no memory for it.
            WaitTimeoutError: no room in time.
        """
        add(self._core, ((as_int64("identity", identity), sequence),), timeout_s)

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
            Column name to tensor: ``(count * sequence_length, *shape)``, each window contiguous
            and in time order (see ``layout``); tags and per-window columns ``(count, *shape)``.
            Always copies, and always exactly ``count`` windows. ``.points`` says where they lie.

        Raises:
            EmptyTableError: the table is empty.
            NoWindowError: no sequence is long enough.
            WaitTimeoutError: nothing to sample came in time.
        """
        count = at_least_one("count", count)
        sequence_length = at_least_one("sequence_length", sequence_length)
        result = sample(self._core, count, sequence_length, timeout_s)
        if self.device.type != "cpu":
            for name, column in result.items():
                result[name] = column.to(self.device, non_blocking=True)
        for adaptor in self.adaptors:
            result = adaptor(result, count, sequence_length)
        return result

    # -- looking up and removing -----------------------------------------------------------

    def size(self) -> int:
        """Number of transitions in the table."""
        return self._core.size()

    def __len__(self) -> int:
        return self._core.size()

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
            CapacityError: smaller, or beyond the address space taken at creation.
        """
        lookup.resize(self._core, at_least_one("new_size", new_size))

    # -- files -----------------------------------------------------------------------------

    def store(
        self,
        path: str | os.PathLike[str],
        version: TableSerializationVersion = TableSerializationVersion.LATEST,
        *,
        progress: Progress | None = None,
    ) -> bool:
        """Write the table to the file ``path + ".zip"``, while others go on using it.

        Whole or not at all: a failure leaves the file before. Returns True.

        Args:
            path: without the suffix.
            version: of the format.
            progress: called now and then as ``progress(done, total)``, in bytes.

        Raises:
            OSError: no space, or no right to write there.
            TableFileError: something that the format cannot hold.
            LockTimeoutError: another process is writing this file.
        """
        store(self._core, f"{os.fspath(path)}.zip", version, progress)
        return True

    def restore(
        self,
        path: str | os.PathLike[str],
        override_version: TableSerializationVersion | None = None,
        *,
        strict: bool = True,
        progress: Progress | None = None,
    ) -> bool:
        """Replace the content by that of the file ``path + ".zip"``, for everybody at once.

        The whole file is checked first; whatever the error, the table is as it was. A larger
        table's file gives its newest sequences that fit, and a warning. Returns True.

        Args:
            path: without the suffix.
            override_version: read the file as this version, whatever it says itself.
            strict: refuse a file that lacks columns or has more of them; otherwise those become
                zeros, these are left out, and a warning says so.
            progress: called now and then as ``progress(done, total)``, in bytes.

        Raises:
            TableFileError: the file is missing, damaged, of a later version, unsafe, or of
                another table (``FileMissingError`` and so on).
            CapacityError, SharedMemoryError: no room for old and new content side by side.
        """
        name = f"{os.fspath(path)}.zip"
        restore(self._core, name, override_version, strict=strict, progress=progress)
        return True

    def flush(self) -> None:
        """Bring a table in a ``directory`` to the disk; returns when it is there.

        The last process to close it does so too. Should the machine stop before, what was added
        since is in doubt (see ``attach``). Does nothing for a table in memory.

        Raises:
            ArenaError: the disk refuses.
        """
        disk.flush(self._core)

    # -- watching --------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Walk every invariant of the table; what is wrong, empty when it is healthy."""
        return lookup.check(self._core)

    def stats(self) -> Stats:
        """Counts and sizes, all of one moment."""
        return lookup.stats(self._core)

    def __repr__(self) -> str:
        return f"<ArrayMemoryTable{lookup.described(self._open) if self._open else ', closed'}>"

    # -- life and passing on ---------------------------------------------------------------

    def close(self) -> None:
        """Let go of the table; the creator's close also ends its name. Safe to call twice.

        The memory itself goes when the last process has let go. A table in a ``directory`` stays.
        """
        core, self._open = self._open, None
        if core is not None:
            core.close()

    def __enter__(self) -> ArrayMemoryTable:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # The address travels, never the data. Classes go by reference: a custom strategy or
        # mapper must be importable where the table arrives.
        core = self._core
        return _reopen, (core.arena.address(), core.classes(), self.adaptors, str(self.device))


def _reopen(
    address: object, classes: dict[str, type[Any]], adaptors: list[Adaptor], device: str
) -> ArrayMemoryTable:
    table = ArrayMemoryTable.__new__(ArrayMemoryTable)
    table._deliver(adaptors, device)
    table._open = Core.open(Arena.open(address), classes)
    return table
