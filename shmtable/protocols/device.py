"""A table's memory on a device: who has made it, how others come to it, and when it is lost.

The process that makes the table allocates the columns, once; the table's pickle brings others a
handle. The index is in shared memory as ever, so a process may have a table's index and no way to
its columns: one that attaches by name, one forked after CUDA was started, one that has outlived
the columns' owner. All of these are told so by their next call.
"""

from __future__ import annotations

import multiprocessing.util
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from shmtable.columns import (
    Backend,
    CpuStorage,
    DeviceStorage,
    Handle,
    Schema,
    backend_of,
    device_bytes,
)
from shmtable.errors import ArenaDamagedError, ArenaError, DeviceMemoryError, SpecError
from shmtable.index import Layout
from shmtable.index.attachments import can_tell
from shmtable.protocols.arguments import as_device
from shmtable.shm import process
from shmtable.shm.arena import Arena
from shmtable.types import Int64Array

# By the arena's number, what this process has: the same for every object of one table.
_reached: weakref.WeakValueDictionary[int, DeviceMemory] = weakref.WeakValueDictionary()
# Of a parent process, in its forked child: nothing of it may be dropped there, as that may be a
# call of the device, which does not work in a forked process.
_of_parents: list[Tensor] = []


class DeviceMemory:
    """The memory of one table's columns, as this process has it.

    Args:
        backend: of the device.
        tensor: uint8, all of it.
        made_by: the process that allocated it.
        watch: whether that process can be watched: it is another one, in this pid namespace.

    Attributes:
        backend: as given.
    """

    def __init__(
        self, backend: Backend, tensor: Tensor, made_by: process.ProcessId, watch: bool
    ) -> None:
        self.backend = backend
        self._held = [tensor]
        self._storages: weakref.WeakSet[DeviceStorage] = weakref.WeakSet()
        self._made_by = made_by
        self._watch = process.Watch(made_by) if watch else None
        self._attached_by: process.ProcessId | None = None
        self._forked = False
        process.after_fork(self._note_fork)

    @property
    def tensor(self) -> Tensor:
        """uint8, all of it."""
        return self._held[0]

    def used_by(self, storage: DeviceStorage) -> None:
        """Note who has views of it."""
        self._storages.add(storage)

    def say_goodbye(self) -> None:
        """Have it let go as this process ends: its maker keeps it for as long as others have it.

        Children of multiprocessing leave without dropping what they have.
        """
        self._attached_by = process.current()
        self._let_go_at_exit()
        # A forkserver's child receives the table first, and then forgets what was to be done at
        # the end, as the child of a fork.
        multiprocessing.util.register_after_fork(self, DeviceMemory._let_go_at_exit)

    def _let_go_at_exit(self) -> None:
        if self._attached_by == process.current():  # in a forked child there is nothing to undo
            held = self._held, self._storages, self._watch
            multiprocessing.util.Finalize(self, _let_go, args=held, exitpriority=0)

    @classmethod
    def make(cls, backend: Backend, schema: Schema, layout: Layout) -> DeviceMemory:
        """Allocate it.

        Raises:
            SharedMemoryError: the device has not so much left.
        """
        size = device_bytes(schema, layout.capacity_rows, layout.capacity_slots)
        with _lasting():
            return cls(backend, backend.allocate(size), process.current(), watch=False)

    def keep(self, arena: Arena) -> None:
        """Let every object of this arena's table find it."""
        _reached[arena.id] = self

    def check_size(self, schema: Schema, layout: Layout, where: str) -> None:
        """Refuse memory of another size than the layout's.

        Raises:
            ArenaDamagedError: it is.
        """
        size = device_bytes(schema, layout.capacity_rows, layout.capacity_slots)
        if len(self.tensor) != size:
            raise ArenaDamagedError(
                f"{where} contradicts itself: its columns have {len(self.tensor)} bytes on "
                f"{self.backend.device}, its description needs {size}; create the table again",
                path=where,
            )

    def export(self) -> Handle:
        """A handle for one other process.

        Raises:
            DeviceMemoryError: another process has made the memory.
        """
        if self._made_by != process.current():
            raise DeviceMemoryError(
                f"the table's columns are on {self.backend.device}, in memory of process "
                f"{self._made_by.pid}, and only that process can pass the table on; start your "
                "workers from there",
                pid=self._made_by.pid,
            )
        return self.backend.export(self.tensor)

    def refuse_lost(self) -> None:
        """Raise if this process cannot reach the memory, or not any more.

        Raises:
            DeviceMemoryError: it cannot.
        """
        if self._forked:
            raise DeviceMemoryError(
                f"the table's columns are on {self.backend.device}, and this process was forked "
                "from one that has them, where CUDA does not work; start it by spawn or "
                "forkserver",
                device=str(self.backend.device),
            )
        if self._watch is not None and self._watch.is_gone():
            raise DeviceMemoryError(
                f"process {self._made_by.pid} has ended, which made the table and owned its "
                f"columns on {self.backend.device}; they are lost. Keep it running until all "
                "others are done",
                pid=self._made_by.pid,
            )

    def _note_fork(self) -> None:
        self._forked = not self.backend.forks
        if self._forked:
            _of_parents.extend(self._held)


def reached(arena: Arena, handle: Handle | None) -> DeviceMemory | None:
    """The device memory of an arena's table; None where its columns are in the arena itself.

    Args:
        arena: attached.
        handle: what came with the table's pickle; None where it was found by name.

    Raises:
        ArenaError: by name nobody comes to a device's memory.
        DeviceMemoryError: nor does this process, by any way.
    """
    options = arena.json.get("options")
    device = options.get("storage_device") if isinstance(options, dict) else None
    if device is None:
        return None
    known = _reached.get(arena.id)
    if known is not None:
        if handle is not None:
            handle.drop()
        return known
    if handle is None:
        raise ArenaError(
            f"{arena.where}: the table's columns are on {device}, where a name does not lead; "
            "pass the table itself to processes that its maker starts (by spawn or forkserver), "
            "or make it with storage_device='cpu'",
            path=arena.where,
        )
    with _lasting():
        backend, tensor = handle.attach()
    made_by = arena.creator
    watch = made_by != process.current() and can_tell(arena.words)
    memory = DeviceMemory(backend, tensor, made_by, watch)
    memory.refuse_lost()
    memory.say_goodbye()
    memory.keep(arena)
    return memory


def _lasting() -> AbstractContextManager[object]:
    # What torch makes in its inference mode cannot be written to after it.
    return torch.inference_mode(False)


def _let_go(
    held: list[Tensor], storages: weakref.WeakSet[DeviceStorage], watch: process.Watch | None
) -> None:
    if watch is not None and watch.is_gone():
        return  # nobody waits for it, and what the device says to it is not to be known
    held.clear()
    for storage in storages:
        storage.let_go()


def storage_of(
    schema: Schema,
    memory: DeviceMemory | None,
    layout: Layout,
    region: Callable[[str], Tensor],
    steps_since: Callable[[Int64Array], Int64Array],
) -> CpuStorage | DeviceStorage:
    """Where a table's rows lie: on a device, or else in the arena's regions."""
    if memory is None:
        return CpuStorage(
            schema,
            {name: region(f"column/{name}") for name in schema.regions},
            {tag.name: region(f"tag/{tag.name}") for tag in schema.tags},
            steps_since,
        )
    rows, slots = layout.capacity_rows, layout.capacity_slots
    with _lasting():
        storage = DeviceStorage(schema, memory.backend, memory.tensor, rows, slots, steps_since)
    memory.used_by(storage)
    return storage


def refuse_lost(memory: DeviceMemory | None) -> None:
    """Raise if the columns are on a device and out of this process's reach.

    Raises:
        DeviceMemoryError: they are.
    """
    if memory is not None:
        memory.refuse_lost()


def settle(memory: DeviceMemory | None) -> None:
    """Wait for copies of this thread that a device may still be at, after an interrupt."""
    if memory is not None:
        memory.backend.settle()


def storage_backend(device: object, directory: str | None) -> Backend | None:
    """What holds the columns; None for shared memory, or a file.

    Args:
        device: as a caller gives it.
        directory: of the table's file, or None.

    Raises:
        SpecError: no columns can be held there.
        DeviceMemoryError: not by this process.
    """
    chosen: torch.device = as_device(device, "storage_device")
    if chosen.type == "cpu":
        return None
    if directory is not None:
        raise SpecError(
            f"storage_device is '{chosen}' and directory is {directory!r}: columns on a device "
            "are in no file; leave one of the two out, and use store() to keep the content",
            directory=directory,
        )
    return backend_of(chosen)
