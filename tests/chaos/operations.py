"""Calls in which a process may die, and what they lead to."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from functools import cache
from typing import Any

import numpy as np

from shmtable import ArrayMemoryTable, SamplePoints, SampleToInsertRatio
from shmtable.index import fields as f
from tests.chaos.content import Content, Entry, add
from tests.chaos.scenario import MAXLEN, Operation, Scenario, Stages
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew

# What is in the file that is restored.
STORED = (Entry(20, 8), Entry(2, 9, 1), Entry(21, 11))


def adding(name: str, *entries: Entry, **more: Any) -> Scenario:
    """One or several calls of ``add_sequence``."""
    replace = more.get("options", {}).get("on_duplicate") == "replace"

    def stages(before: Content) -> list[Content]:
        found = [before]
        for entry in entries:
            found += found[-1].adding(entry, replace=replace)[1:]
        return found

    return Scenario(name, lambda table: add(table, *entries), stages, adds=entries, **more)


def removing(name: str, *identities: int, gaps: tuple[int, ...] = (), **more: Any) -> Scenario:
    """One or several calls of ``remove``, where ``gaps`` have been removed before."""

    def operate(table: ArrayMemoryTable) -> None:
        for identity in identities:
            table.remove(identity)

    return Scenario(
        name,
        operate,
        lambda before: [before.without(*identities[:n]) for n in range(len(identities) + 1)],
        prepare=remove(*gaps),
        **more,
    )


def remove(*identities: int) -> Operation:
    def prepare(table: ArrayMemoryTable) -> None:
        for identity in identities:
            table.remove(identity)

    return prepare


def add_at_once(*entries: Entry) -> Operation:
    def operate(table: ArrayMemoryTable) -> None:
        table.add_sequences(
            (identity, content.sequence(identity, length, version=version))
            for identity, length, version in entries
        )

    return operate


def die_in_copy(table: ArrayMemoryTable, entry: Entry) -> None:
    """Reserves, and is killed before the first row is copied; for a process of its own."""
    table._core.storage.write = _die  # type: ignore[method-assign, assignment]
    add(table, entry)


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def abandoned(*entries: Entry) -> Operation:
    """Leaves reservations of dead processes behind."""

    def prepare(table: ArrayMemoryTable) -> None:
        with Crew("fork") as crew:
            for entry in entries:
                crew.add(die_in_copy, table, entry).expected_exit = -signal.SIGKILL
            crew.go()
            crew.results()
        assert table.stats().writing_transitions == sum(entry.length for entry in entries)

    return prepare


def add_and_fail(*entries: Entry) -> Operation:
    """Is interrupted while copying, and so gives its reservation back."""

    def fail(*_: Any) -> None:
        raise RuntimeError("interrupted on purpose")

    def operate(table: ArrayMemoryTable) -> None:
        table._core.storage.write = fail  # type: ignore[method-assign, assignment]
        try:
            add(table, *entries)
        except RuntimeError:
            return

    return operate


def update_priorities(table: ArrayMemoryTable) -> None:
    """Of windows of three, one of them twice."""
    view = table._core.view
    slots = view.live_slots()[[0, 3, 1, 3]]
    points = view.points(slots, np.array([2, 7, 0, 7]))
    assert table.update_priorities(points, np.arange(12).reshape(4, 3) / 2) == 4


def sample_by_another_alpha(table: ArrayMemoryTable) -> None:
    table.sampler.alpha = 1.5  # type: ignore[attr-defined]
    table.sample(3, 2)


def sample(table: ArrayMemoryTable) -> None:
    table.sample(6, 2)


def sample_until_used_up(table: ArrayMemoryTable) -> None:
    table.sample(5, 2)


def sample_three(table: ArrayMemoryTable) -> None:
    """The three oldest of a queue."""
    taken = table.sample(3, 2, timeout_s=60)
    assert taken.points is not None and len(taken.points) == 3


def taken_by_three(before: Content) -> list[Content]:
    identities = [entry.identity for entry in before.entries]
    return [before.without(*identities[:n]) for n in range(4)]


def set_free(table: ArrayMemoryTable) -> None:
    """Let adds eject instead of waiting to be sampled."""
    table.limiter = None


def pace(table: ArrayMemoryTable) -> None:
    table.limiter = SampleToInsertRatio(2.0, 1, 10_000, per="sequence")


def wait_long(table: ArrayMemoryTable) -> None:
    """As a call does that has slept for a second."""
    table._core.waited.add(f.ADDS_WAITED_NS, 1_000_000_000)


def add_with_priority(entry: Entry, priority: float) -> Operation:
    def operate(table: ArrayMemoryTable) -> None:
        found = content.sequence(entry.identity, entry.length, version=entry.version)
        table.add_sequence(entry.identity, found, priority=priority)

    return operate


def sample_often(table: ArrayMemoryTable) -> None:
    table.sample(40, 1)  # of each of five sequences eight windows


def write_back(table: ArrayMemoryTable) -> None:
    points = table._core.guard.run(points_of_all, table)
    values = [table.sequence(identity)["rewards"][:3] for identity in points.identities.tolist()]
    assert table.update(points, "rewards", values) == len(points)


def points_of_all(table: ArrayMemoryTable) -> SamplePoints:
    """The first window of each sequence."""
    slots = np.sort(table._core.view.live_slots())
    return table._core.view.points(slots, np.zeros(len(slots), np.int64))


def used_up(before: Content) -> list[Content]:
    identities = [entry.identity for entry in before.entries]
    return [before.without(*identities[:n]) for n in range(len(identities) + 1)]


def unchanged(before: Content) -> list[Content]:
    return [before]


def ejecting_only(*entries: Entry) -> Stages:
    return lambda before: before.adding(*entries)[:-1]


def resized(maxlen: int) -> Stages:
    def stages(before: Content) -> list[Content]:
        raised = before._replace(max_sequences=before.max_sequences * maxlen // before.maxlen)
        return [before, raised, raised._replace(maxlen=maxlen)]

    return stages


@cache
def _file() -> str:
    """A table's file, without its suffix; gone when this process ends."""
    folder = tempfile.mkdtemp(prefix="shmtable-chaos-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with content.make(maxlen=MAXLEN) as table:
        add(table, *STORED)
        table.store(f"{folder}/table")
    return f"{folder}/table"


def restore(table: ArrayMemoryTable) -> None:
    table.restore(_file())


def add_across_a_restore(entry: Entry) -> Operation:
    """Another table's content arrives while a sequence is being copied."""

    def operate(table: ArrayMemoryTable) -> None:
        write = table._core.storage.write

        def restore_and_write(*arguments: Any) -> None:
            restore(table)
            write(*arguments)

        table._core.storage.write = restore_and_write  # type: ignore[method-assign, assignment]
        add(table, entry)

    return operate


def restored(*entries: Entry, replace: bool = False) -> Stages:
    """A file's content, and then these added one after the other."""

    def stages(before: Content) -> list[Content]:
        found = [before, before._replace(entries=STORED)]
        for entry in entries:
            found += found[-1].adding(entry, replace=replace)[1:]
        return found

    return stages


def make_file(_: ArrayMemoryTable) -> None:
    _file()  # before anybody forks: it is this process that removes it
