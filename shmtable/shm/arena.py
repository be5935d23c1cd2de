"""One table's shared memory: one file, mapped once in every process that uses it."""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch

from shmtable.errors import ArenaInUseError, ArenaNotFoundError, SpecError
from shmtable.shm import address as addresses
from shmtable.shm import durable, files, header, leftovers, look, places, process, robust, room
from shmtable.shm import lock as locks
from shmtable.shm.parting import Parting

Plan = Callable[[int], tuple[int, dict[str, Any]]]
Spans = Sequence[tuple[int, int]]

_arenas: weakref.WeakValueDictionary[files.Key, Arena] = weakref.WeakValueDictionary()
_adopting = threading.RLock()


def _renew_after_fork() -> None:
    global _adopting
    _adopting = threading.RLock()


process.after_fork(_renew_after_fork)


class Arena:
    """A mapped arena. Make one by :meth:`create`, :meth:`attach` or :meth:`open`.

    A process has at most one per file: opening what is open returns the same object and counts
    one more reference, and :meth:`close` takes one away. The mapping itself goes when the last
    tensor, array or lock made from it is dropped, so a thread inside a call keeps what it uses.

    Attributes:
        memory: uint8 [total_bytes], the whole file. Only reserved bytes may be touched, even to
            read.
        words: the first 4096 bytes as 512 int64; see ``header`` for the first 64.
        json: the table's description; not to be changed.
        id: 128-bit random number of the arena.
        lock_kind: "robust" or "portable", chosen at creation.
        name, directory, path: where it lies; None where it has none.
        total_bytes: address space, most of it not reserved.
        factor: how many times the planned room the address space has: 16, 8, 4, 2 or 1.
        first: nobody else used the file when this process attached to it: its locks were made
            new and the dirty flag was set, so that the next section repairs.
        words_found: what ``words`` held then, before anybody else could attach; else empty.
    """

    memory: torch.Tensor
    words: memoryview
    total_bytes: int

    def __init__(
        self,
        descriptor: files.Descriptor,
        path: str | None,
        name: str | None,
        directory: str | None,
    ) -> None:
        """For the class methods: takes over one use of the descriptor; not mapped yet."""
        self._descriptor = descriptor
        self.path, self.name, self.directory = path, name, directory
        self.json: dict[str, Any] = {}
        self.id = 0
        self.lock_kind = ""
        self.factor = 1
        self.first = False
        self.words_found: tuple[int, ...] = ()
        self._references = 1
        self._handed_over: tuple[Any, Any] | None = None
        self._parting = Parting(self, descriptor)

    # -- making one ------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        plan: Plan,
        *,
        name: str | None = None,
        directory: str | None = None,
        lock: str = "robust",
        prepare: Callable[[Arena], None] | None = None,
    ) -> Arena:
        """Make a new arena.

        Args:
            plan: from an address factor (16, 8, 4, 2, 1, tried in turn until one can be mapped)
                to (total bytes, description). The description is stored as JSON in the first
                ``header_bytes(description)`` bytes, which are reserved; nothing else is.
            name: for other processes to attach by, or None.
            directory: an existing folder for a table on disk, or None for shared memory.
            lock: "robust" or "portable".
            prepare: fills in the rest before anybody else can attach.

        Raises:
            SpecError: the name or the lock kind is not one.
            ArenaInUseError: a living process uses the name, or the file exists on disk.
            SharedMemoryError: no room, not even with factor 1.
        """
        locks.check_kind(lock)
        if name is None and directory is not None:
            raise SpecError(
                f"directory={directory!r} needs a name for the table's file; pass name= too",
                directory=directory,
            )
        descriptor = files.create_nameless() if name is None else None
        if descriptor is not None:
            return cls(descriptor, None, None, None)._build(plan, lock, prepare)
        path = places.random_path() if name is None else places.path_of(name, directory)
        with places.name_lock(path):
            leftovers.clear_name(path, keep_finished=directory is not None)
            try:
                descriptor = files.open_file(path, create=True)
                return cls(descriptor, path, name, directory)._build(plan, lock, prepare)
            except ArenaInUseError:
                raise  # made by somebody who does not know of the name lock
            except BaseException:
                with suppress(OSError):
                    os.unlink(path)
                raise

    @classmethod
    def attach(
        cls,
        name: str,
        *,
        directory: str | None = None,
        recover: Callable[[Arena], None] | None = None,
    ) -> Arena:
        """Map a table another process made, by its name.

        Args:
            name: of the table.
            directory: its folder, or None for shared memory.
            recover: makes sense, before anybody else can attach, of a file that was in use when
                the machine stopped; None refuses such a file.

        Raises:
            ArenaNotFoundError: no such table.
            ArenaPermissionError: not a private file of this user.
            ArenaVersionError: of a format this version does not read.
            ArenaDamagedError: not a table, cut short, or inconsistent.
            ArenaUncleanError: in use when the machine stopped, and ``recover`` is None.
            ArenaError: made in another pid namespace.
        """
        path = places.path_of(name, directory)
        with places.name_lock(path):
            return cls._from_path(path, name, directory, recover=recover)

    @classmethod
    def open(cls, address: object) -> Arena:
        """Map the arena of an :meth:`address` from any process of the same user.

        Raises:
            ArenaNotFoundError: nobody who could hand it over is alive any more.
            SpecError: not an address.
        """
        if not isinstance(address, addresses.Address):
            raise SpecError(f"{address!r} is not an arena's address; pass Arena.address()")
        path, place = address.path, (address.name, address.directory)
        failures = []
        with _adopting:
            for arena in list(_arenas.values()):
                if arena.id == address.id:
                    return arena._again()
        for way in address.ways():
            try:
                return cls._adopt(way(), path, *place, number=address.id)
            except OSError as error:
                failures.append(str(error))
        if path is not None:
            try:
                with places.name_lock(path):
                    return cls._from_path(path, *place, number=address.id)
            except OSError as error:
                failures.append(str(error))
        raise ArenaNotFoundError(
            f"{address} cannot be reached any more ({'; '.join(failures)}); keep a process alive "
            "that has it open, or give the table a name",
            id=address.id,
        )

    @classmethod
    def _from_path(cls, path: str, name: str | None, directory: str | None, **more: Any) -> Arena:
        """Open by path; the caller holds the name lock."""
        descriptor = files.open_file(path)
        fresh = descriptor.users == 1
        unused = fresh and leftovers.is_unused(descriptor.fd)
        if fresh and not unused:
            leftovers.share(descriptor.fd)
        arena = cls._adopt(descriptor, path, name, directory, first=unused, **more)
        if unused:
            # Only now: whoever is handed the file at this moment waits until its locks are new.
            leftovers.share(arena._descriptor.fd)
        return arena

    @classmethod
    def _adopt(
        cls,
        descriptor: files.Descriptor,
        path: str | None,
        name: str | None,
        directory: str | None,
        *,
        number: int | None = None,
        first: bool = False,
        recover: Callable[[Arena], None] | None = None,
    ) -> Arena:
        """Check and map an open file, or return its arena; uses up one hold of the descriptor."""
        arena = cls(descriptor, path, name, directory)
        with _adopting:
            try:
                found = files.read_header(descriptor.fd, arena.where)
                if number not in (None, found.id):
                    raise ArenaNotFoundError(f"{arena.where} is another table by now")
                known = _arenas.get(descriptor.key)
                if known is not None:
                    arena._parting.now()
                    return known._again()
                if not first:
                    header.check_namespace(found, arena.where)
                unclean = first and directory is not None and durable.is_unclean(found)
                if unclean and recover is None:
                    raise durable.unclean(arena.where)
                arena._map(room.map_file(descriptor.fd, found.words[header.TOTAL_BYTES]))
                arena._take(found)
                if first:
                    arena._restart(recover if unclean else None)
                if directory is not None and (first or arena.words[header.CLEAN]):
                    arena.words[header.CLEAN] = 0
                    arena.sync([(0, header.HEADER_BYTES)])  # before anything else is changed
            except BaseException:
                arena._parting.now()
                raise
            _arenas[descriptor.key] = arena
            arena._arrange_parting(own=False)
        return arena

    def _again(self) -> Arena:
        self._references += 1
        return self

    # -- filling in ------------------------------------------------------------------------------

    def _build(self, plan: Plan, lock: str, prepare: Callable[[Arena], None] | None) -> Arena:
        """Make the new file an arena; the caller holds the name lock, if any."""
        fd = self._descriptor.fd
        try:
            leftovers.share(fd)
            factor, json_object, memory = room.map_largest(fd, plan)
            self._map(memory)
            self._format(json_object, factor, lock)
            if prepare is not None:
                prepare(self)
            self.words[header.MAGIC] = header.MAGIC_VALUE
        except BaseException:
            self._parting.now()
            raise
        self._arrange_parting(own=True)
        _arenas[self._descriptor.key] = self
        return self

    def _map(self, memory: torch.Tensor) -> None:
        self.memory = memory
        self.total_bytes = memory.numel()
        first: Any = memory[: header.HEADER_BYTES].numpy()
        self.words = memoryview(first).cast("q")

    def _format(self, json_object: dict[str, Any], factor: int, lock_kind: str) -> None:
        """Write the header of a new file, all but the magic word."""
        fd = self._descriptor.fd
        text = header.encode_json(json_object)
        self.reserve([(0, header.header_bytes(json_object))])
        os.pwrite(fd, text, header.HEADER_BYTES)
        number = secrets.randbits(128)
        header.fill(
            self.words,
            id=number,
            json_text=text,
            total_bytes=self.total_bytes,
            lock_kind=lock_kind,
            factor=factor,
            creator_fd=fd,
        )
        if lock_kind == "robust":
            robust.initialise(self.memory)
        files.seal_size(fd)
        self._take(header.Header(tuple(self.words[:16]), number, lock_kind, json_object))

    def _take(self, found: header.Header) -> None:
        self.json, self.id, self.lock_kind = found.json, found.id, found.lock_kind
        self.factor = found.words[header.FACTOR]

    def _restart(self, recover: Callable[[Arena], None] | None) -> None:
        """Make a file that nobody else uses ready again; the caller holds the name lock."""
        self.first = True
        self.words_found = tuple(self.words)
        if self.lock_kind == "robust":
            robust.initialise(self.memory)
        header.restart(self.words)
        if recover is not None:
            recover(self)
        # Last: who is killed before has not made sense of the file.
        self.words[header.BOOT_ID] = process.boot_id()

    def _arrange_parting(self, *, own: bool) -> None:
        if self.path is not None and self.directory is not None:
            self._parting.mark_clean(self.path)
        elif self.path is not None and own:
            self._parting.remove_name(self.path)

    # -- using it --------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        """The file, for messages."""
        return self.path or "the unnamed table"

    @property
    def closed(self) -> bool:
        """Whether no reference is left in this process."""
        return self._references == 0

    @property
    def creator(self) -> process.ProcessId:
        """The process that made it."""
        return process.ProcessId(self.words[header.CREATOR_PID], self.words[header.CREATOR_START])

    def address(self) -> addresses.Address:
        """What another process of this user needs to open it; picklable, small.

        While ``multiprocessing`` spawns a child, it also hands the descriptor over.
        """
        me, made, fd = process.current(), self.creator, self._descriptor.fd
        holders = [addresses.Holder(me.pid, me.start, fd)]
        if me != made:
            holders.append(addresses.Holder(made.pid, made.start, self.words[header.CREATOR_FD]))
        self._handed_over = addresses.hand_over(fd, self._handed_over)
        handle = None if self._handed_over is None else self._handed_over[1]
        place = self.path, self.name, self.directory
        return addresses.Address(self.id, *place, tuple(holders), handle)

    def reserve(self, spans: Spans, blocks: Spans = ()) -> None:
        """Take memory (on disk: disk space) for parts of the file, so that they may be touched.

        The caller holds the grow lock, and asks only for bytes that were never reserved.

        Args:
            spans, blocks: (offset, bytes); the blocks (see ``huge``) are complete with them.

        Raises:
            SharedMemoryError: with ``asked_bytes`` and ``free_bytes``.
        """
        in_use, in_memory, fd = self.in_use(), self.directory is None, self._descriptor.fd
        room.reserve(fd, spans, self.memory, blocks, in_memory=in_memory, where=self.where)
        del in_use

    def settle(self, reserved: Spans, beyond: tuple[int, int]) -> None:
        """Make room of which a stop of the machine left doubts certain; see ``room.settle``."""
        room.settle(self._descriptor.fd, reserved, beyond, self.where)

    def sync(self, spans: Spans) -> None:
        """Bring (offset, bytes) parts of a file on disk to the disk; see ``durable.sync``."""
        in_use = self.in_use()
        durable.sync(self._descriptor.fd, self.memory, spans, self.where)
        del in_use

    def in_use(self) -> files.InUse:
        """What keeps this process a user of the file, even if another thread closes it."""
        return self._descriptor.in_use()

    def look(self) -> look.Look:
        """The file, to be looked at as others see it."""
        return look.Look(self._descriptor.hold(), self.where)

    def lock_file(self) -> files.Descriptor:
        """The file whose bytes the portable locks lock; the caller becomes a user of it."""
        return files.lock_file(self.path, self._descriptor)

    def close(self) -> None:
        """Drop one reference; the last one lets the file go, and its owner removes its name."""
        with _adopting:
            if self._references == 0:
                return
            self._references -= 1
            if self._references:
                return
            if _arenas.get(self._descriptor.key) is self:
                del _arenas[self._descriptor.key]
        self._parting.now()
