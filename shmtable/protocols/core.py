"""One process's hold on a table: its parts, put together the same way in every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from shmtable.columns import Converter, CpuStorage, Schema
from shmtable.errors import ArenaDamagedError, SpecError
from shmtable.index import (
    Arrays,
    Attachments,
    Extra,
    Growth,
    Index,
    IndexView,
    Layout,
    refuse_impossible,
)
from shmtable.index import fields as f
from shmtable.index.layout import MINIMUM_BUCKETS, SPARE_SLOTS, row_limit
from shmtable.mappers import MAPPERS
from shmtable.protocols.options import Options
from shmtable.shm import process
from shmtable.shm.arena import Arena
from shmtable.shm.guard import Guard
from shmtable.shm.header import DIRTY, header_bytes
from shmtable.shm.lock import robust_available
from shmtable.strategies import (
    STRATEGIES,
    EjectionStrategy,
    SampleStrategy,
    StateSpec,
    Strategy,
    make_strategy,
)
from shmtable.types import Int64Array

LOCK_TIMEOUT_S = 60.0
# Memory is taken from the system in steps of an eighth of what there is, within these bounds.
_LEAST_STEP_BYTES = 256 << 10
_LARGEST_STEP_BYTES = 16 << 20

_MOST_NAMED = 8
_EXAMPLES = {"sampler": "UniformSampleStrategy()", "ejector": "FifoEjectionStrategy()"}


class Core:
    """The parts of an attached table.

    Attributes:
        arena, index, view, storage, schema, converter, sampler, ejector, options: its parts.
        guard: the table lock.
        receivers, listeners, prioritized: those strategies that want to know of sequences being
            written, of windows handed out, of priorities.
    """

    def __init__(self, arena: Arena, classes: Mapping[str, type[Any]]) -> None:
        self.arena = arena
        spec = arena.json
        try:
            self.options = Options(**spec["options"])
            self.schema = Schema.from_json(spec["schema"], {**MAPPERS, **classes})
            self.sampler: SampleStrategy = _make_strategy(spec["sampler"], SampleStrategy, classes)
            self.ejector: EjectionStrategy = _make_strategy(
                spec["ejector"], EjectionStrategy, classes
            )
            layout = _layout(spec, self.schema, self.options, arena.factor)
        except (KeyError, TypeError, AttributeError) as error:
            raise ArenaDamagedError(
                f"{_where(arena)}: the table's description is incomplete ({error!r}); "
                "create the table again"
            ) from error
        if layout.total_bytes != arena.total_bytes:
            raise ArenaDamagedError(
                f"{_where(arena)}: {arena.total_bytes} bytes are mapped, its description needs "
                f"{layout.total_bytes}; create the table again"
            )
        self.layout = layout
        self.arrays = Arrays(arena.memory, arena.words, layout)
        # Around a fork the last one made is locked first: the order in which they are taken.
        self.guard = Guard(arena, "table", self._repair_locked)
        self._grow_guard = Guard(arena, "grow", _nothing_to_repair)
        self.index = Index(
            self.arrays,
            extra_rows=extra_rows(self.schema),
            ring=self.guard.bell.ring_locked,
            track=self._track,
            forget=self._forget,
            rebuild=self._rebuild_strategies,
        )
        self.attachments = Attachments(arena.words, self.arrays.attachment_words)
        self.view = IndexView(self.arrays, short=self.options.pad is not None)
        for role, strategy in self._strategies().items():
            strategy.bind(
                self.view,
                {
                    state.name: self.arrays.array(f"{role}/{state.name}", state.dtype)
                    for state in strategy.states()
                },
            )
        self.storage = CpuStorage(
            self.schema,
            {c.name: self._region(f"column/{c.name}") for c in self.schema.stored},
            {c.name: self._region(f"tag/{c.name}") for c in self.schema.tags},
        )
        self.converter = Converter(self.schema, self.options.maxlen)
        # What the strategies have to say beyond the obligatory: asked once, not in every call.
        both = (self.sampler, self.ejector)
        self.receivers = [s for s in both if _overrides(s, Strategy, "receive")]
        self.listeners = [s for s in both if _overrides(s, Strategy, "on_sample")]
        self.prioritized = [s for s in both if s.takes_priorities]
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
    ) -> Core:
        """Make a new table; the arguments are those of ``ArrayMemoryTable``."""
        _check_strategy("sampler", sampler, SampleStrategy)
        _check_strategy("ejector", ejector, EjectionStrategy)
        if lock is None:
            lock = "robust" if robust_available() else "portable"
        spec = {
            "schema": schema.to_json(),
            "options": asdict(options),
            "sampler": _describe(sampler),
            "ejector": _describe(ejector),
        }

        def plan(factor: int) -> tuple[int, dict[str, Any]]:
            return _layout(spec, schema, options, factor).total_bytes, spec

        made: list[Core] = []

        def prepare(arena: Arena) -> None:
            core = cls(arena, classes_of(schema, sampler, ejector))
            core._format(preallocate)
            core.guard.run(core._join_locked)
            made.append(core)

        Arena.create(plan, name=name, directory=directory, lock=lock, prepare=prepare)
        return made[0]

    @classmethod
    def open(cls, arena: Arena, classes: Mapping[str, type[Any]]) -> Core:
        """Join a table that exists; ``arena`` is closed when that fails.

        Args:
            arena: attached.
            classes: of the mappers and strategies its header names and this program may not know.

        Raises:
            SpecError, ArenaDamagedError: the header describes no table that can be had here.
        """
        try:
            core = cls(arena, classes)
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

    def victims_locked(self, transitions: int) -> Int64Array:
        """Live slots to eject so that at least so many transitions become free."""
        return self.ejector.sample(transitions, self.random_locked())

    def random_locked(self) -> np.random.Generator:
        """This process's generator, seeded from the table's seed and a number of its own."""
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
        self.random_locked()

    def _repair_locked(self) -> None:
        self.arena.words[f.RECOVERIES] += 1
        self.index.rebuild_locked()

    def receive(self, slot: int, start: int, length: int, priority: Any = None) -> None:
        """Tell the strategies of a sequence whose rows are being written; without the lock."""
        for strategy in self.receivers:
            strategy.receive(slot, start, length, priority)

    def _track(self, slot: int, start: int, length: int) -> None:
        self.sampler.track(slot, start, length)
        self.ejector.track(slot, start, length)

    def _forget(self, slot: int, start: int, length: int) -> None:
        self.sampler.forget(slot, start, length)
        self.ejector.forget(slot, start, length)

    def _rebuild_strategies(self) -> None:
        self.sampler.rebuild()
        self.ejector.rebuild()

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
        most_slots = limits[1] + SPARE_SLOTS + 1
        self._reserve("row", f.RESERVED_ROWS, growth.rows, most_rows)
        self._reserve("slot", f.RESERVED_SLOTS, growth.slots, most_slots)
        self._reserve("bucket", f.RESERVED_BUCKETS, growth.buckets, growth.buckets)
        if growth.buckets > words[f.BUCKETS]:
            self.guard.run(self.index.grow_buckets_locked, growth.buckets)

    def _reserve(self, per: str, mark: int, wanted: int, most: int) -> None:
        words = self.arena.words
        have = words[mark]
        if wanted <= have:
            return
        item_bytes = self.layout.item_bytes(per)
        step = min(max(have * item_bytes // 8, _LEAST_STEP_BYTES), _LARGEST_STEP_BYTES)
        target = max(wanted, min(have + step // item_bytes, most))
        self.arena.reserve(self.layout.spans(per, have, target))
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
        """Who else has the table open, and when each last added: for the end of a message."""
        others = self.attachments.others()
        if not others:
            return "no other process has the table open"
        shown = "; ".join(map(str, others[-_MOST_NAMED:]))
        return f"of {len(others)} others with the table open: {shown}"

    def close(self) -> None:
        """Let go of the arena; what a thread is using at this moment stays until it is done."""
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
        self.index.reservations.drop_all()


def _overrides(strategy: Strategy, base: type[Strategy], method: str) -> bool:
    return getattr(type(strategy), method) is not getattr(base, method)


def extra_rows(schema: Schema) -> int:
    """Rows that a sequence may bring beyond its transitions: at least a last observation."""
    return max(1, schema.max_look_ahead)


def classes_of(schema: Schema, *strategies: Strategy) -> dict[str, type[Any]]:
    """By name, the classes of the mappers and strategies."""
    inner = [part for strategy in strategies for part in strategy.parts()]
    parts = [*(column.mapper for column in schema.virtual), *strategies, *inner]
    return {type(part).__name__: type(part) for part in parts}


def _describe(strategy: Strategy) -> dict[str, Any]:
    return {
        "type": type(strategy).__name__,
        "config": strategy.config(),
        "states": [list(asdict(state).values()) for state in strategy.states()],
    }


def _check_strategy(what: str, strategy: object, kind: type[Strategy]) -> None:
    if not isinstance(strategy, kind):
        raise SpecError(
            f"{what} is {strategy!r}; give an instance of a {kind.__name__}, "
            f"for example {what}={_EXAMPLES[what]}"
        )


def _make_strategy(
    spec: Mapping[str, Any], kind: type[Strategy], classes: Mapping[str, type[Any]]
) -> Any:
    return make_strategy(kind, spec["type"], spec["config"], {**STRATEGIES, **classes})


def _layout(spec: Mapping[str, Any], schema: Schema, options: Options, factor: int) -> Layout:
    arrays = [Extra(f"column/{c.name}", "row", c.row_bytes) for c in schema.stored]
    arrays += [Extra(f"tag/{c.name}", "slot", c.row_bytes) for c in schema.tags]
    for role in ("sampler", "ejector"):
        for state in (StateSpec(*entry) for entry in spec[role]["states"]):
            item_bytes = np.dtype(state.dtype).itemsize
            per = "once" if state.per == "table" else state.per
            arrays.append(Extra(f"{role}/{state.name}", per, item_bytes, state.every))
    return Layout.plan(
        first_byte=header_bytes(spec),
        factor=factor,
        maxlen=options.maxlen,
        max_sequences=options.max_sequences,
        extra_rows=extra_rows(schema),
        arrays=arrays,
    )


def _nothing_to_repair() -> None:
    """After the grow lock: what a dead process had reserved and not noted is reserved again."""


def _nothing() -> None:
    """Only to have been inside."""


def _where(arena: Arena) -> str:
    return arena.path or "the table received"
