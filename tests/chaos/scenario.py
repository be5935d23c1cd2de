"""A situation, and a call in which a process is going to die in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shmtable import ArrayMemoryTable
from shmtable.index import fields as f
from shmtable.shm.header import DIRTY
from tests.chaos.content import Content, Entry, add
from tests.multiprocess import content

Operation = Callable[[ArrayMemoryTable], None]
Stages = Callable[[Content], list[Content]]

MAXLEN = 60
FIVE = tuple(Entry(identity, 10) for identity in range(5))
# What leaves in these was not live.
_NOT_LIVE = {"abort_of_locked", "reclaim_locked"}


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
        free: done before the survivor goes on to add more than there is room for.
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
    free: Operation | None = None

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


def gives_priority(label: str) -> bool:
    """Whether it is in the middle of giving windows their priorities."""
    return ": priority[" in label and label.endswith(", first half")


def stages_after(labels: list[str]) -> list[int]:
    """For each of a call's stores, how many stages further it has taken the call."""
    found = [0]
    committed = False  # in this run of commit_locked: what leaves then has been replaced already
    for label in labels:
        if label.endswith(f": words[{DIRTY}] = 1"):
            committed = False
        frees = _is_state(label, f.FREE) and _NOT_LIVE.isdisjoint(functions(label))
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
