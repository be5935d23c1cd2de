"""Situations, and the calls in which a process is going to die in them."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from shmtable import ArrayMemoryTable
from shmtable.index import fields as f
from shmtable.shm.header import DIRTY
from tests.chaos.content import Content, Entry, add
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew

Operation = Callable[[ArrayMemoryTable], None]
Stages = Callable[[Content], list[Content]]

# What leaves in these was not live.
NOT_LIVE = {"abort_of_locked", "reclaim_locked"}
MAXLEN = 60
FIVE = tuple(Entry(identity, 10) for identity in range(5))
FULL = (*FIVE, Entry(5, 10))


@dataclass(frozen=True)
class Scenario:
    """A situation and a call.

    Attributes:
        name: of the call and the situation.
        operate: the call; the process that makes it is killed in the middle.
        stages: from what was in the table, everything that may be found afterwards, in the order
            in which the call gets there.
        start: what is added at first, in order.
        prepare: done after that.
        adds: what the call adds; the survivor tries that again.
        beside: a sequence that the survivor is in the middle of adding all the time.
        options: of the table.
        within: a function; only stores made inside it count.
        from_file: the call reads rows from a file.
        repeatable: the survivor makes the call once more, and it gets to the last stage.
    """

    name: str
    operate: Operation
    stages: Stages
    start: tuple[Entry, ...] = FIVE
    prepare: Operation | None = None
    adds: tuple[Entry, ...] = ()
    beside: Entry | None = None
    options: dict[str, Any] = field(default_factory=dict)
    within: str = ""
    from_file: bool = False
    repeatable: bool = False

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def replaces(self) -> bool:
        """Whether the table replaces duplicates."""
        return self.options.get("on_duplicate") == "replace"

    def table(self, lock: str) -> ArrayMemoryTable:
        """The table as the victim finds it."""
        table = content.make(**{"maxlen": MAXLEN, "seed": 1, **self.options}, lock=lock)
        add(table, *self.start)
        if self.prepare is not None:
            self.prepare(table)
        return table


def makes_live(label: str) -> bool:
    """Whether the store so described commits a sequence."""
    return _is_state(label, f.LIVE)


def clears(label: str) -> bool:
    """Whether it empties the table."""
    return f": words[{f.LIVE_FROM}] = " in label


def stages_after(labels: list[str]) -> list[int]:
    """For each of a call's stores, how many stages further it has taken the call."""
    found = [0]
    committed = False  # in this run of commit_locked: what leaves then has been replaced already
    for label in labels:
        if label.endswith(f": words[{DIRTY}] = 1"):
            committed = False
        frees = _is_state(label, f.FREE) and NOT_LIVE.isdisjoint(functions(label))
        raises_limit = any(f": words[{word}] = " in label for word in (f.MAXLEN, f.MAX_SEQUENCES))
        further = makes_live(label) or clears(label) or raises_limit or (frees and not committed)
        committed |= makes_live(label)
        found.append(found[-1] + further)
    return found[1:]


def _is_state(label: str, state: int) -> bool:
    found = re.search(r": slot_words\[(\d+)\] = (\d+)$", label)
    return bool(found) and int(found[1]) % f.SLOT_WORDS == f.STATE and int(found[2]) == state


def functions(label: str) -> list[str]:
    """The functions in which the store so described was made, outermost first."""
    return label.partition(":")[0].split(" > ")


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
        prepare=_remove(*gaps),
        **more,
    )


def _remove(*identities: int) -> Operation:
    def prepare(table: ArrayMemoryTable) -> None:
        for identity in identities:
            table.remove(identity)

    return prepare


def _add_at_once(*entries: Entry) -> Operation:
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


def _add_and_fail(*entries: Entry) -> Operation:
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


def _sample(table: ArrayMemoryTable) -> None:
    table.sample(6, 2)


def _unchanged(before: Content) -> list[Content]:
    return [before]


def _ejecting_only(*entries: Entry) -> Stages:
    return lambda before: before.adding(*entries)[:-1]


def _resized(maxlen: int) -> Stages:
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


def _restore(table: ArrayMemoryTable) -> None:
    table.restore(_file())


def _add_across_a_restore(entry: Entry) -> Operation:
    """Another table's content arrives while a sequence is being copied."""

    def operate(table: ArrayMemoryTable) -> None:
        write = table._core.storage.write

        def restore_and_write(*arguments: Any) -> None:
            _restore(table)
            write(*arguments)

        table._core.storage.write = restore_and_write  # type: ignore[method-assign, assignment]
        add(table, entry)

    return operate


def _restored(*entries: Entry, replace: bool = False) -> Stages:
    """A file's content, and then these added one after the other."""

    def stages(before: Content) -> list[Content]:
        found = [before, before._replace(entries=STORED)]
        for entry in entries:
            found += found[-1].adding(entry, replace=replace)[1:]
        return found

    return stages


def _make_file(_: ArrayMemoryTable) -> None:
    _file()  # before anybody forks: it is this process that removes it


NEW = Entry(10, 7)
LIVING = Entry(15, 9)
STORED = (Entry(20, 8), Entry(2, 9, 1), Entry(21, 11))
SEVERAL = (NEW, Entry(11, 1), Entry(12, 2))
MANY = tuple(Entry(identity, 1) for identity in range(512))  # half of the smallest identity map
REPLACE = {"on_duplicate": "replace"}
FEW = {"max_sequences": 5}
WIDE = {"maxlen": 600, "width": 64}  # so wide that the rows reserved at first are soon used up
LONG = {"maxlen": 5000}

SCENARIOS = (
    adding("add", NEW),
    adding("add to an empty table", NEW, start=(), within="reserve_locked"),
    adding("add into a gap", NEW, prepare=_remove(1, 3), within="reserve_locked"),
    adding("add that ejects three", Entry(10, 33), start=FULL, within="reserve_locked"),
    adding("add that ejects all", Entry(10, 60), start=FULL[:3], within="reserve_locked"),
    adding("add beyond the sequences", NEW, options=FEW, within="reserve_locked"),
    adding("replace", Entry(2, 6, 1), options=REPLACE, within="commit_locked"),
    adding(
        "replace where it is full",
        Entry(3, 14, 1),
        start=FULL,
        options=REPLACE,
        within="reserve_locked",
    ),
    Scenario(
        "add several at once",
        _add_at_once(*SEVERAL),
        lambda before: [before.added(*SEVERAL[:n]) for n in range(len(SEVERAL) + 1)],
        start=FIVE[:3],
        adds=SEVERAL,
        within="_commit_locked",
    ),
    removing("remove the first", 0),
    removing("remove the last", 4),
    removing("remove between gaps", 2, gaps=(1, 3)),
    removing("remove all", 2, 0, 1, start=FIVE[:3]),
    Scenario(
        "clear", lambda table: table.clear(), lambda b: [b, b._replace(entries=())], repeatable=True
    ),
    Scenario("resize", lambda table: table.resize(150), _resized(150), start=FULL, repeatable=True),
    Scenario(
        "restore",
        _restore,
        _restored(),
        prepare=_make_file,
        within="_publish_locked",
        from_file=True,
        repeatable=True,
    ),
    Scenario(
        "add across a restore",
        _add_across_a_restore(Entry(10, 50)),
        _restored(Entry(10, 50)),
        start=FIVE[:1],
        prepare=_make_file,
        adds=(Entry(10, 50),),
        within="commit_locked",
        from_file=True,
    ),
    Scenario(
        "replace across a restore",
        _add_across_a_restore(Entry(2, 6, 2)),
        _restored(Entry(2, 6, 2), replace=True),
        prepare=_make_file,
        adds=(Entry(2, 6, 2),),
        options=REPLACE,
        within="commit_locked",
        from_file=True,
    ),
    adding(
        "add beside a living writer",
        Entry(10, 20),
        start=FIVE,
        beside=LIVING,
        within="reserve_locked",
    ),
    Scenario(
        "clear beside a living writer",
        lambda table: table.clear(),
        lambda b: [b, b._replace(entries=())],
        beside=LIVING,
        within="clear_locked",
        repeatable=True,
    ),
    Scenario("sample", _sample, _unchanged),
    Scenario(
        "give up", _add_and_fail(NEW), _ejecting_only(NEW), start=FULL, within="abort_of_locked"
    ),
    adding("reclaim an identity", NEW, prepare=abandoned(Entry(10, 5, 1)), within="reclaim_locked"),
    adding(
        "reclaim room",
        Entry(10, 30),
        start=FIVE[:3],
        prepare=abandoned(Entry(11, 31)),
        within="sweep_locked",
    ),
    adding("grow the rows", Entry(10, 450), within="_grow", options=WIDE),
    adding("grow the identity map", Entry(1000, 1), start=MANY, within="_grow", options=LONG),
)
