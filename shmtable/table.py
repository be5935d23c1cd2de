"""The table: joins the parts, owns no algorithm."""

from __future__ import annotations

import enum
import operator
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from shmtable.adaptors import Adaptor
from shmtable.columns import Column
from shmtable.errors import ClosedError, SpecError
from shmtable.protocols import Core, add_sequences, lookup, sample
from shmtable.protocols.options import build
from shmtable.shm.arena import Arena
from shmtable.strategies import EjectionStrategy, SampleStrategy
from shmtable.types import Finding, Int64Array, SampleResult, Stats


class TableSerializationVersion(enum.Enum):
    """The formats a table's file may have."""

    Legacy = 0
    V1 = 1
    LATEST = V1


class MemoryTable(Protocol):
    """What samplers of experience need of a table.

    Attributes:
        adaptors: applied in order to every sample.
    """

    adaptors: list[Adaptor]

    def sample(self, count: int, sequence_length: int) -> SampleResult:
        """Draw ``count`` windows of ``sequence_length`` transitions."""
        ...

    def size(self) -> int:
        """Number of transitions in the table."""
        ...

    def full(self) -> bool:
        """Whether adding may eject."""
        ...

    def add_sequence(self, identity: int, sequence: Mapping[str, Any]) -> None:
        """Add a fully terminated sequence."""
        ...


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
        adaptors: Adaptor | Sequence[Adaptor] | None = None,
        device: torch.device | str | None = None,
    ) -> ArrayMemoryTable:
        """Open a named table that another process of this user has made.

        Args:
            name: as given at creation.
            directory: as given at creation.
            adaptors: for samples drawn through this object.
            device: where they are delivered; the CPU if None.

        Raises:
            ArenaNotFoundError: no such table.
            ArenaPermissionError: it belongs to somebody else.
            ArenaVersionError: made by an incompatible version.
            ArenaDamagedError: the file is no sound table.
        """
        core = Core.open(Arena.attach(name, directory=directory), {})
        return cls._of(core, adaptors, device or "cpu")

    @classmethod
    def _of(
        cls,
        core: Core,
        adaptors: Adaptor | Sequence[Adaptor] | None,
        device: torch.device | str,
    ) -> ArrayMemoryTable:
        table = cls.__new__(cls)
        table._deliver(adaptors, device)
        table._open = core
        return table

    def _deliver(
        self, adaptors: Adaptor | Sequence[Adaptor] | None, device: torch.device | str
    ) -> None:
        self.adaptors = [adaptors] if callable(adaptors) else list(adaptors or ())
        self.device = torch.device(device)

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
        core = self._core
        core.converter.maxlen = core.maxlen()
        prepared = core.converter.prepare(sequence)
        add_sequences(core, (_int64("identity", identity),), (prepared,), timeout_s)

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
        core = self._core
        core.converter.maxlen = core.maxlen()
        identities, prepared = [], []
        for identity, sequence in sequences:
            identities.append(_int64("identity", identity))
            prepared.append(core.converter.prepare(sequence))
        add_sequences(core, identities, prepared, timeout_s)

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
        count = _at_least_one("count", count)
        sequence_length = _at_least_one("sequence_length", sequence_length)
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
        return lookup.sequence(self._core, _int64("identity", identity))

    def remove(self, identity: int) -> None:
        """Remove one sequence.

        Raises:
            UnknownIdentityError: no live sequence has this identity.
        """
        lookup.remove(self._core, _int64("identity", identity))

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
        lookup.resize(self._core, _at_least_one("new_size", new_size))

    # -- watching --------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Walk every invariant of the table; what is wrong, empty when it is healthy."""
        return lookup.check(self._core)

    def stats(self) -> Stats:
        """Counts and sizes, all of one moment."""
        return lookup.stats(self._core)

    def __repr__(self) -> str:
        if self._open is None:
            return "<ArrayMemoryTable, closed>"
        stats = self.stats()
        columns = ", ".join(
            f"{column.name} {column.dtype.name}{list(column.shape)}" for column in self.columns
        )
        return (
            f"<ArrayMemoryTable {self._core.where()}: {stats.transitions} of {stats.maxlen} "
            f"transitions in {stats.sequences} sequences; {columns}; "
            f"{stats.bytes_reserved / 2**20:.1f} MiB>"
        )

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # The address travels, never the data. Classes go by reference: a custom strategy or
        # mapper must be importable where the table arrives.
        core = self._core
        return _reopen, (core.arena.address(), core.classes(), self.adaptors, str(self.device))


def _reopen(
    address: object, classes: dict[str, type[Any]], adaptors: list[Adaptor], device: str
) -> ArrayMemoryTable:
    core = Core.open(Arena.open(address), classes)
    return ArrayMemoryTable._of(core, adaptors, device)


def _int64(what: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError as error:
        raise SpecError(
            f"{what} is {value!r}, a {type(value).__name__}; give an integer"
        ) from error
    if not -(2**63) <= number < 2**63:
        raise SpecError(f"{what} is {number}; give one that fits into 64 bits, signed")
    return number


def _at_least_one(what: str, value: Any) -> int:
    number = _int64(what, value)
    if number < 1:
        raise SpecError(f"{what} is {number}; give at least 1")
    return number
