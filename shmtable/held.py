"""A table as something a process holds: attached, passed on, kept in files, watched, let go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch

from shmtable.adaptors import Adaptor
from shmtable.columns import Handle
from shmtable.delivery import Deliveries
from shmtable.errors import ClosedError
from shmtable.formats import Progress, TableSerializationVersion
from shmtable.protocols import Core, disk, lookup, restore, store
from shmtable.protocols.arguments import as_adaptors, as_device
from shmtable.protocols.outside import Outside
from shmtable.shm.arena import Arena
from shmtable.types import Finding, Stats

T = TypeVar("T", bound="HeldTable")
_Adaptors = Adaptor | Sequence[Adaptor] | None


class HeldTable:
    """One process's hold on a table, whatever is done with its content."""

    adaptors: list[Adaptor]
    _open: Core | None

    @classmethod
    def attach(
        cls: type[T],
        name: str,
        *,
        directory: str | None = None,
        recover: bool = False,
        adaptors: Adaptor | Sequence[Adaptor] | None = None,
        device: torch.device | str | None = None,
        classes: Iterable[type[Any]] = (),
    ) -> T:
        """Open a named table that another process of this user has made.

        Args:
            name: as given at creation.
            directory: as given at creation.
            recover: take also a table on disk that was in use when the machine stopped; what
                there is of it is kept, and a warning says how much.
            adaptors: for samples drawn through this object.
            device: where they are delivered; the CPU if None.
            classes: of strategies and mappers of your own that the table uses: its file names
                them, and only those given here are made.

        Raises:
            SpecError: the table uses a class that is not known here.
            ArenaNotFoundError: no such table.
            ArenaPermissionError: it belongs to somebody else.
            ArenaVersionError: made by an incompatible version.
            ArenaDamagedError: the file is no sound table.
            ArenaUncleanError: in use when the machine stopped; see ``recover``.
            ArenaError: its columns are in a device's memory, where a name does not lead.
        """
        table = cls.__new__(cls)
        table._deliver(adaptors, device or "cpu")
        by_name = {given.__name__: given for given in classes}
        table._open = disk.attach(name, directory, recover, by_name)
        return table

    def _deliver(self, adaptors: _Adaptors, device: torch.device | str) -> None:
        self.adaptors = as_adaptors(adaptors)
        self.device = as_device(device)
        self._deliveries = Deliveries(self.device) if self.device.type == "cuda" else None

    @property
    def device(self) -> torch.device:
        """Where samples are delivered."""
        return self._device

    @device.setter
    def device(self, device: torch.device) -> None:
        self._device = device
        self._on_cpu = device.type == "cpu"  # asked in every sample, where torch takes its time

    @property
    def _core(self) -> Core:
        core = self._open
        if core is None:
            raise ClosedError("the table is closed; make or attach it again to use it")
        if core.memory is not None:
            core.memory.refuse_lost()
        return core

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
        """Counts and sizes of one moment, and who has the table open.

        Takes some tens of microseconds; holds the lock for a few.
        """
        return lookup.stats(self._core)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}{lookup.described(self._open) if self._open else ', closed'}>"
        )

    # -- life and passing on ---------------------------------------------------------------

    def close(self) -> None:
        """Let go of the table; the creator's close also ends its name. Safe to call twice.

        The memory itself goes when the last process has let go. A table in a ``directory`` stays.
        """
        if self._deliveries is not None:
            self._deliveries.close()
        core, self._open = self._open, None
        if core is not None:
            core.close()

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # The address travels, never the data. Classes go by reference: a custom strategy or
        # mapper must be importable where the table arrives.
        core = self._core
        address = core.arena.address()
        handle = None if core.memory is None else core.memory.export()
        device = str(self.device)
        return _reopen, (type(self), address, core.classes(), self.adaptors, device, handle)


def _reopen(
    cls: type[HeldTable],
    address: object,
    classes: dict[str, type[Any]],
    adaptors: list[Adaptor],
    device: str,
    handle: Handle | None = None,
) -> HeldTable:
    table = cls.__new__(cls)
    table._deliver(adaptors, device)
    try:
        arena = Arena.open(address)
    except BaseException:
        if handle is not None:
            with suppress(RuntimeError):
                handle.drop()  # or its maker would keep the memory for this process
        raise
    core = table._open = Core.open(arena, classes, handle)
    if core.memory is not None and device == core.options.storage_device:
        table.device = core.memory.backend.device  # which may have another number here
    return table


def outside_of(table: HeldTable) -> tuple[str, Outside]:
    """A table's name (or that it has none), and how it looks from outside."""
    core = table._core
    return core.where(), Outside(core.arena.look())
