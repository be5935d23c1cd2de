"""A table beside a list: any run of calls leaves both the same, and the table sound."""

from __future__ import annotations

import itertools
import pickle
from typing import Any
from unittest import TestCase

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shmtable import (
    ArrayMemoryTable,
    CapacityError,
    DuplicateIdentityError,
    EjectionStrategy,
    EmptyTableError,
    FifoEjectionStrategy,
    NoWindowError,
    SequenceError,
    UniformEjectionStrategy,
    UniformSampleStrategy,
    UnknownIdentityError,
)
from shmtable.index import fields as f
from shmtable.shm.header import DIRTY
from tests.stateful.model import Entry, ListTable
from tests.tables import small_columns, small_sequence, torn_windows

MAXLEN = 60

identities = st.one_of(st.integers(0, 7), st.sampled_from([-1, 2**63 - 1, -(2**63)]))
lengths = st.one_of(st.integers(1, 12), st.integers(1, MAXLEN + 5))
# The table itself, or one that was pickled and read back: it must not matter.
handles = st.integers(0, 1)


class Interrupted(BaseException):
    """An add is cut off while it copies."""


class TableBesideList(RuleBasedStateMachine):
    """Every rule does the same to both, and says when the table may refuse."""

    ejector: type[EjectionStrategy]
    lock: str

    @initialize(
        max_sequences=st.sampled_from([3, 8, MAXLEN]),
        replace=st.booleans(),
        pad=st.sampled_from([None, "edge"]),
        seed=st.integers(0, 3),
    )
    def make(self, max_sequences: int, replace: bool, pad: str | None, seed: int) -> None:
        table = ArrayMemoryTable(
            columns=small_columns(),
            maxlen=MAXLEN,
            max_sequences=max_sequences,
            sampler=UniformSampleStrategy(),
            ejector=self.ejector(),
            on_duplicate="replace" if replace else "error",
            pad=pad,
            seed=seed,
            lock=self.lock,
        )
        self.handles = [table, pickle.loads(pickle.dumps(table))]
        self.model = ListTable(MAXLEN, max_sequences, replace)
        self.pad = pad
        self.serials = itertools.count(1)
        self.recoveries = 0

    def teardown(self) -> None:
        for table in getattr(self, "handles", []):
            table.close()

    # -- what a table does -----------------------------------------------------------------

    @rule(handle=handles, identity=identities, length=lengths)
    def add(self, handle: int, identity: int, length: int) -> None:
        new = Entry(identity, next(self.serials), length)
        self._add(self.handles[handle], [new], batch=False)

    @rule(handle=handles, sequences=st.lists(st.tuples(identities, lengths), max_size=6))
    def add_several(self, handle: int, sequences: list[tuple[int, int]]) -> None:
        news = [Entry(identity, next(self.serials), length) for identity, length in sequences]
        self._add(self.handles[handle], news, batch=True)

    def _add(self, table: ArrayMemoryTable, news: list[Entry], batch: bool) -> None:
        pairs = [(new.identity, small_sequence(new.serial, new.length)) for new in news]
        refusal = self._refusal(news)
        if refusal is not None:
            with pytest.raises(refusal):
                table.add_sequences(pairs) if batch else table.add_sequence(*pairs[0])
            return
        if batch:
            table.add_sequences(pairs)
        else:
            table.add_sequence(*pairs[0])
        if self.ejector is FifoEjectionStrategy:
            for new in news:
                self.model.add(new, self.model.oldest(new))
        elif len(news) == 1:
            self._add_random(table, news[0])
        else:
            self._adopt(table, news)

    def _refusal(self, news: list[Entry]) -> type[Exception] | None:
        """What the table has to say to these; nothing of them is then added."""
        if any(new.length > self.model.maxlen for new in news):
            return SequenceError
        names = [new.identity for new in news]
        known = any(self.model.find(identity) for identity in names)
        if not self.model.replace and (known or len(set(names)) < len(names)):
            return DuplicateIdentityError
        return None

    def _add_random(self, table: ArrayMemoryTable, new: Entry) -> None:
        """Whom a random ejector chose is seen afterwards; it must be few enough."""
        present = set(table.identities().tolist())
        gone = [e for e in self.model.entries if e.identity not in present]
        freed, wanted = [entry.length for entry in gone], self.model.wanted(new)
        assert sum(freed) >= wanted
        assert not gone or sum(freed) - max(freed) < wanted, "more have gone than were needed"
        self.model.add(new, gone)

    def _adopt(self, table: ArrayMemoryTable, news: list[Entry]) -> None:
        """After a random batch: survivors in order, the last of the batch among them."""
        fits = self.model.size() + sum(new.length for new in news) <= self.model.maxlen
        fits &= len(self.model.entries) + len(news) <= self.model.max_sequences
        before = len(self.model.entries)
        for new in news:
            self.model.add(new, [])
        present = table.identities().tolist()
        gone = [entry for entry in self.model.entries if entry.identity not in present]
        assert not (gone and fits) and (not news or news[-1].identity == present[-1])
        assert len(gone) <= before + len(news)
        self.model.entries = [entry for entry in self.model.entries if entry not in gone]
        # Some may have come and gone again within the batch, which only the table knows.
        saturated = bool(table._core.arena.words[f.SATURATED])
        assert saturated or not (gone or self.model.ejected)
        assert not saturated or self.model.ejected or not fits
        self.model.ejected = saturated

    @rule(handle=handles, identity=identities)
    def remove(self, handle: int, identity: int) -> None:
        if self.model.find(identity):
            self.handles[handle].remove(identity)
            self.model.remove(identity)
        else:
            with pytest.raises(UnknownIdentityError):
                self.handles[handle].remove(identity)

    @rule(handle=handles, count=st.integers(1, 20), steps=st.integers(1, 20))
    def sample(self, handle: int, count: int, steps: int) -> None:
        table = self.handles[handle]
        offered = {e.identity: e for e in self.model.entries if e.length >= steps or self.pad}
        if not offered:
            with pytest.raises(NoWindowError if self.model.entries else EmptyTableError):
                table.sample(count, steps)
            return
        sample = table.sample(count, steps)
        points = sample.points
        assert points is not None and len(points) == count
        for window, identity in enumerate(points.identities.tolist()):
            entry = offered[identity]
            first = int(points.offsets[window])
            real = min(steps, entry.length - first)
            assert real == steps or first == 0
            rows = {name: c[window * steps : window * steps + real] for name, c in sample.items()}
            assert rows["obs"][0].tolist() == [entry.serial, first, entry.length]
            assert torn_windows(rows, real) == []

    @rule(handle=handles, identity=identities)
    def sequence(self, handle: int, identity: int) -> None:
        entry = self.model.find(identity)
        if entry is None:
            with pytest.raises(UnknownIdentityError):
                self.handles[handle].sequence(identity)
            return
        found = self.handles[handle].sequence(identity)
        expected: dict[str, Any] = small_sequence(entry.serial, entry.length)
        assert {name: c.tolist() for name, c in found.items()} == {
            name: c.tolist() for name, c in expected.items()
        }

    @rule(handle=handles, factor=st.sampled_from([0.5, 1, 1.1, 2, 100]))
    def resize(self, handle: int, factor: float) -> None:
        size = max(int(self.model.maxlen * factor), 1)
        if self.model.maxlen <= size <= 16 * MAXLEN:
            self.handles[handle].resize(size)
            self.model.resize(size)
        else:
            with pytest.raises(CapacityError):
                self.handles[handle].resize(size)

    @rule(handle=handles)
    def clear(self, handle: int) -> None:
        self.handles[handle].clear()
        self.model.clear()

    # -- what befalls it -------------------------------------------------------------------

    @rule(handle=handles, word=st.sampled_from([f.LIVE_COUNT, f.LIVE_STEPS, f.FREE_COUNT]))
    def a_process_dies_in_a_section(self, handle: int, word: int) -> None:
        core = self.handles[handle]._core
        core.arena.words[DIRTY] = 1
        core.arena.words[word] = 2**30
        core.arrays.links[: core.arena.words[f.SLOT_HIGH]] = 1
        self.recoveries += 1

    @rule(handle=handles, length=st.integers(1, 12))
    def an_add_is_interrupted(self, handle: int, length: int) -> None:
        table = self.handles[handle]
        storage = table._core.storage
        original = storage.write

        def interrupted(*args: Any) -> None:
            original(*args)
            raise Interrupted

        new = Entry(2**40, next(self.serials), length)
        storage.write = interrupted  # type: ignore[method-assign]
        try:
            with pytest.raises(Interrupted):
                table.add_sequence(new.identity, small_sequence(new.serial, length))
        finally:
            storage.write = original  # type: ignore[method-assign]
        present = set(table.identities().tolist())
        gone = [entry for entry in self.model.entries if entry.identity not in present]
        if self.ejector is FifoEjectionStrategy:
            assert gone == self.model.oldest(new)
        self.model.add(new, gone)
        self.model.remove(new.identity)

    # -- what holds at any time ------------------------------------------------------------

    @invariant()
    def both_are_the_same(self) -> None:
        if not hasattr(self, "handles"):
            return
        for table in self.handles:
            assert table.check() == []
            assert table.identities().tolist() == [e.identity for e in self.model.entries]
            assert table.size() == len(table) == self.model.size() <= table.maxlen
            assert table.maxlen == self.model.maxlen
            assert table.full() == self.model.full()
        stats = self.handles[0].stats()
        assert stats.sequences == len(self.model.entries) <= stats.max_sequences
        assert stats.max_sequences == self.model.max_sequences
        assert stats.writing_transitions == 0
        assert stats.recoveries == self.recoveries
        assert stats.sequences_added - stats.sequences_removed == stats.sequences


def test_case(ejector: type[EjectionStrategy], lock: str) -> type[TestCase]:
    machine = type("Machine", (TableBesideList,), {"ejector": ejector, "lock": lock})
    case: type[TestCase] = machine.TestCase
    case.settings = settings(max_examples=20, stateful_step_count=30)
    return case


test_case.__test__ = False  # type: ignore[attr-defined]

TestFifoRobust = test_case(FifoEjectionStrategy, "robust")
TestFifoPortable = test_case(FifoEjectionStrategy, "portable")
TestUniformRobust = test_case(UniformEjectionStrategy, "robust")
TestUniformPortable = test_case(UniformEjectionStrategy, "portable")
