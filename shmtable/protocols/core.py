"""One process's hold on a table: its parts, put together the same way in every process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from shmtable.columns import Backend, Converter, Handle, Schema
from shmtable.errors import ArenaDamagedError, ShmTableError
from shmtable.index import (
    Arrays,
    Attachments,
    Growth,
    Index,
    IndexView,
    refuse_impossible,
)
from shmtable.index import fields as f
from shmtable.index.layout import MINIMUM_BUCKETS, SPARE_SLOTS, row_limit
from shmtable.limiters import Limiter
from shmtable.mappers import MAPPERS
from shmtable.protocols.callbacks import Repair, Told, overrides
from shmtable.protocols.device import DeviceMemory, reached, storage_of
from shmtable.protocols.header import (
    check_strategy,
    classes_of,
    describe,
    extra_rows,
    made_strategy,
    plan_layout,
)
from shmtable.protocols.options import Options
from shmtable.protocols.pace import Pace
from shmtable.protocols.waited import Waited
from shmtable.shm import process
from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from shmtable.shm.header import DIRTY
from shmtable.shm.huge import BLOCK_BYTES
from shmtable.shm.lock import robust_available
from shmtable.strategies import (
    EjectionStrategy,
    SampleStrategy,
    Strategy,
)
from shmtable.types import Int64Array

LOCK_TIMEOUT_S = 60.0
# Memory is taken from the system in steps of a share of what there is, within these bounds: of an
# eighth until the table is full, and then of what a full table may have too much of.
_STEP_SHARE, _LAST_STEP_SHARE = 8, 128
_LEAST_STEP_BYTES = 256 << 10
_LARGEST_STEP_BYTES = 16 << 20


class Core:
    """The parts of an attached table.

    Attributes:
        arena, index, view, storage, schema, converter, sampler, ejector, options, pace, waited:
            its parts.
        memory: of the columns on a device; None where they are in the arena.
        guard: the table lock.
        receivers, listeners, prioritized: those strategies that want to know of sequences being
            written, of windows handed out, of priorities.
        weighs: whether samples have weights.
        generated: identities made up by this process.
    """

    def __init__(
        self,
        arena: Arena,
        classes: Mapping[str, type[Any]],
        memory: DeviceMemory | None = None,
    ) -> None:
        self.arena = arena
        self.memory = memory
        spec = arena.json
        try:
            self.options = Options(**spec["options"])
            self.schema = Schema.from_json(spec["schema"], {**MAPPERS, **classes})
            self.sampler: SampleStrategy = made_strategy(spec["sampler"], SampleStrategy, classes)
            self.ejector: EjectionStrategy = made_strategy(
                spec["ejector"], EjectionStrategy, classes
            )
            layout = plan_layout(spec, self.schema, self.options, arena.factor)
        except ShmTableError:
            raise
        except Exception as error:  # whatever a text that anybody may have written leads to
            raise ArenaDamagedError(
                f"{_where(arena)}: the table's description makes no sense ({error!r}); "
                "create the table again"
            ) from error
        if layout.total_bytes != arena.total_bytes:
            raise ArenaDamagedError(
                f"{_where(arena)}: {arena.total_bytes} bytes are mapped, its description needs "
                f"{layout.total_bytes}; create the table again"
            )
        if memory is not None:
            memory.check_size(self.schema, layout, _where(arena))
        self.layout = layout
        self.arrays = Arrays(arena.memory, arena.words, layout)
        # Around a fork the last one made is locked first: the order in which they are taken.
        self.attachments = Attachments(arena.words, self.arrays.attachment_words)
        company = self.attachments.company
        self._repair = Repair(arena.words)
        self.guard = Guard(arena, "table", self._repair.run_locked, company)
        self._grow_guard = Guard(arena, "grow", _nothing_to_repair, company)
        self.view = IndexView(self.arrays, short=self.options.pad is not None)
        for role, strategy in self._strategies().items():
            strategy.bind(
                self.view,
                {
                    state.name: self.arrays.array(f"{role}/{state.name}", state.dtype)
                    for state in strategy.states()
                },
            )
        told = Told(self.sampler, self.ejector)
        self.index = self._repair.index = Index(
            self.arrays,
            extra_rows=extra_rows(self.schema),
            ring=self.guard.bell.ring_locked,
            track=told.track,
            forget=told.forget,
            rebuild=told.rebuild,
        )
        steps_since = self.view.steps_since
        self.storage = storage_of(self.schema, memory, layout, self._region, steps_since)
        device = None if memory is None else memory.backend.device
        self.converter = Converter(self.schema, self.options.maxlen, device)
        # What the strategies have to say beyond the obligatory: asked once, not in every call.
        both = (self.sampler, self.ejector)
        self.receivers = [s for s in both if overrides(s, "receive")]
        self.listeners = [s for s in both if overrides(s, "on_sample")]
        self.prioritized = [s for s in both if s.takes_priorities]
        self.weighs = overrides(self.sampler, "weights", SampleStrategy)
        self.pace = Pace(arena.words, self.options.max_times_sampled)
        self.generated = 0
        self.waited = Waited(arena.words, self.guard)
        self._random: np.random.Generator | None = None
        process.after_fork(self._renew_after_fork)

    # -- making one ------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        schema: Schema,
        sampler: SampleStrategy,
        ejector: EjectionStrategy,
        options: Options,
        *,
        name: str | None,
        directory: str | None,
        lock: str | None,
        preallocate: bool,
        limiter: Limiter | None = None,
        backend: Backend | None = None,
    ) -> Core:
        """Make a new table; the arguments are those of ``ArrayMemoryTable``.

        ``backend``: of the device that ``options`` name, if they name one.
        """
        check_strategy("sampler", sampler, SampleStrategy)
        check_strategy("ejector", ejector, EjectionStrategy)
        if lock is None:
            lock = "robust" if robust_available() else "portable"
        spec = {
            "schema": schema.to_json(),
            "options": asdict(options),
            "sampler": describe(sampler),
            "ejector": describe(ejector),
        }

        def plan(factor: int) -> tuple[int, dict[str, Any]]:
            return plan_layout(spec, schema, options, factor).total_bytes, spec

        made: list[Core] = []

        def prepare(arena: Arena) -> None:
            memory = None
            if backend is not None:
                layout = plan_layout(spec, schema, options, arena.factor)
                memory = DeviceMemory.make(backend, schema, layout)
                memory.keep(arena)
            core = cls(arena, classes_of(schema, sampler, ejector), memory)
            core._format(preallocate)
            core.guard.run(core._join_locked)
            if limiter is not None or options.max_times_sampled is not None:
                core.guard.run(core.pace.put_locked, limiter)
            made.append(core)

        Arena.create(plan, name=name, directory=directory, lock=lock, prepare=prepare)
        return made[0]

    @classmethod
    def open(
        cls, arena: Arena, classes: Mapping[str, type[Any]], handle: Handle | None = None
    ) -> Core:
        """Join a table that exists; ``arena`` is closed when that fails.

        Args:
            arena: attached.
            classes: of the mappers and strategies its header names and this program may not know.
            handle: of the columns' memory on a device, where the table's pickle brought one.

        Raises:
            SpecError, ArenaDamagedError: the header describes no table that can be had here.
            ArenaError, DeviceMemoryError: no way leads to its columns on a device.
        """
        try:
            core = cls(arena, classes, reached(arena, handle))
            refuse_impossible(arena.words, core.layout, extra_rows(core.schema), _where(arena))
            core.guard.run(core._join_locked)
        except BaseException:
            arena.close()
            raise
        return core

    def _format(self, preallocate: bool) -> None:
        """Lay out the empty index; nobody else can reach it yet."""
        words, options = self.arena.words, self.options
        words[f.MAXLEN] = options.maxlen
        words[f.MAX_SEQUENCES] = options.max_sequences
        words[f.SLOT_HIGH] = 1
        self.arena.reserve(self.layout.once())
        for strategy in self._strategies().values():
            strategy.initialise()
        # A quarter more than maxlen is what the gaps between sequences usually take.
        rows = options.maxlen + options.maxlen // 4 + extra_rows(self.schema)
        self.grow(Growth(rows if preallocate else 1, 2, MINIMUM_BUCKETS))

    # -- under the lock --------------------------------------------------------------------

    def victims_locked(self, transitions: int) -> Int64Array | list[int]:
        """Live slots to eject so that at least so many transitions become free."""
        return self.ejector.sample(transitions, self._generator_locked())

    def random_locked(self) -> np.random.Generator:
        """This process's generator, seeded from the table's seed and a number of its own."""
        # Every add and every sample comes by here; not in the middle of planning one.
        if self.index.reservations:
            self.index.give_back_abandoned_locked()
        return self._random or self._generator_locked()

    def reseed_locked(self, seed: Sequence[int]) -> None:
        """Let this process draw as ``seed`` says from here on, and no longer as the table's."""
        self.random_locked()  # joined, under a number of its own
        self._random = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed)))

    def _generator_locked(self) -> np.random.Generator:
        if self._random is None:
            number = self.index.attachment = self.attachments.join_locked()
            sequence = np.random.SeedSequence(self.options.seed, spawn_key=(number,))
            self._random = np.random.Generator(np.random.SFC64(sequence))
        return self._random

    def _join_locked(self) -> None:
        if self.arena.first:
            # Nobody had the file: what was being written there, nobody will finish. Others may
            # have joined since, and be writing already; their numbers are higher.
            joined = self.arena.words_found[f.NEXT_ATTACHMENT]
            self.index.rebuild_locked(gone_before=joined)
            self.arena.first = False
        self.pace.limiter_locked()  # refuses what is none
        self.random_locked()

    def receive(self, slot: int, start: int, length: int, priority: Any = None) -> None:
        """Tell the strategies of a sequence whose rows are being written; without the lock."""
        for strategy in self.receivers:
            strategy.receive(slot, start, length, priority)

    # -- memory ----------------------------------------------------------------------------

    def grow(self, growth: Growth) -> None:
        """Reserve memory, so that the request that asked for it can be served.

        Raises:
            SharedMemoryError: the system has none left; nothing has changed.
        """
        self._grow_guard.run(self._grow, growth)

    def _grow(self, growth: Growth) -> None:
        # Under the grow lock, not the table's: taking pages is slow, and only the holder of
        # this lock raises the marks that are read here.
        words = self.arena.words
        limits = words[f.MAXLEN], words[f.MAX_SEQUENCES]
        most_rows = row_limit(*limits, extra_rows(self.schema))
        most_rows = min(most_rows, self.layout.capacity_rows)
        most_slots = limits[1] + SPARE_SLOTS + 1
        if growth.slots > most_slots:  # a file is being loaded beside a full table
            most_slots = self.layout.capacity_slots
        self._reserve("row", f.RESERVED_ROWS, growth.rows, limits[0], most_rows)
        self._reserve("slot", f.RESERVED_SLOTS, growth.slots, most_slots, most_slots)
        self._reserve("bucket", f.RESERVED_BUCKETS, growth.buckets, 0, growth.buckets)
        if growth.buckets > words[f.BUCKETS]:
            self.guard.run(self.index.grow_buckets_locked, growth.buckets)

    def _reserve(self, per: str, mark: int, wanted: int, full: int, most: int) -> None:
        words = self.arena.words
        have = words[mark]
        if wanted <= have:
            return
        item_bytes = self.layout.item_bytes(per)
        share = _STEP_SHARE if have < full else _LAST_STEP_SHARE
        step = min(max(have * item_bytes // share, _LEAST_STEP_BYTES), _LARGEST_STEP_BYTES)
        target = have + step // item_bytes
        if have < full:
            target = min(target, full)
        target = max(wanted, min(target, most))
        blocks = self.layout.blocks(per, have, target, BLOCK_BYTES)
        self.arena.reserve(self.layout.spans(per, have, target), blocks)
        self.guard.run(self._raise_mark_locked, mark, target)

    def _raise_mark_locked(self, mark: int, target: int) -> None:
        # One store: nothing is derived from it, so it needs no DIRTY around it.
        self.arena.words[mark] = target

    # -- single numbers, each one aligned load: the lock would add nothing to it -----------------

    def maxlen(self) -> int:
        """Most transitions."""
        return int(self.arena.words[f.MAXLEN])

    def size(self) -> int:
        """Live transitions."""
        if self.arena.words[DIRTY]:
            self.guard.run(_nothing)  # wait for the section, or repair what it left
        return int(self.arena.words[f.LIVE_STEPS])

    def is_full(self) -> bool:
        """Whether an add may eject."""
        words = self.arena.words
        return bool(
            words[f.SATURATED]
            or words[f.LIVE_STEPS] >= words[f.MAXLEN]
            or words[f.LIVE_COUNT] >= words[f.MAX_SEQUENCES]
        )

    # -- the rest --------------------------------------------------------------------------

    def company(self) -> str:
        """Who else has the table open, and when each was last heard of: to end a message with."""
        return self.attachments.company()

    def close(self) -> None:
        """Let go of the arena; what a thread is using at this moment stays until it is done."""
        try:
            if self.index.reservations:  # of a call that was interrupted, perhaps: ended now
                self.guard.run(self.index.abort_abandoned_locked)
        finally:
            self.attachments.leave()
            self.arena.close()

    def classes(self) -> dict[str, type[Any]]:
        """The classes that a header names: another process may not know them by name."""
        return classes_of(self.schema, self.sampler, self.ejector)

    def where(self) -> str:
        """The table's name or file, for messages."""
        return self.arena.name or "(unnamed)"

    def _strategies(self) -> dict[str, Strategy]:
        return {"sampler": self.sampler, "ejector": self.ejector}

    def _region(self, name: str) -> Any:
        region = self.layout.regions[name]
        return self.arena.memory.narrow(0, region.offset, region.bytes)

    def _renew_after_fork(self) -> None:
        # The parent's stream and the parent's open reservations are not the child's.
        self._random = None
        self.attachments.forget()
        self.waited.forget()
        self.index.reservations.clear()


def _nothing_to_repair() -> None:
    """After the grow lock: what a dead process had reserved and not noted is reserved again."""


def _nothing() -> None:
    """Only to have been inside."""


def _where(arena: Arena) -> str:
    return arena.path or "the table received"
