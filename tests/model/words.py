"""The modelled shared memory: every word of it, by name, and the record of a section's stores.

The whole store is one ``bytes`` object, one byte a word, because a state that is visited a
hundred thousand times must be small and quick to hash. Names give addresses: ``STATE + 2`` is
slot 2's state. Words fall into the protocol's kinds (truth, monotone, derived, data) and two
that real memory does not have: *private* words are one process's own memory (they die with it),
and *ghost* words are the modeller's: what an ideal table would contain. No protocol code may
read a ghost; the invariants compare the table with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

SLOTS, ROWS, IDENTITIES, TAGS, PROCESSES, NOTES = 4, 6, 4, 8, 4, 2

# Bits of the dirty word: what may be half done.
INDEX, STRATEGIES = 1, 2
FREE, WRITING, LIVE, LOADED, TAKEN = range(5)
STATE_NAMES = ("FREE", "WRITING", "LIVE", "LOADED", "TAKEN")
UNBORN, THERE, GONE = range(3)  # what the ideal table knows of a sequence

_names: list[str] = []


def _words(name: str, count: int = 0) -> int:
    """Claim ``count`` words (0: a single one without an index); the address of the first."""
    start = len(_names)
    _names.extend([name] if count == 0 else [f"{name}[{i}]" for i in range(count)])
    return start


DIRTY = _words("dirty")

# Truth, per slot.
STATE = _words("state", SLOTS)
GENERATION = _words("generation", SLOTS)
OWNER = _words("owner", SLOTS)  # process + 1; stands for pid, start time and attachment
CLAIM = _words("claim", SLOTS)  # the owner's own running number of this reservation
IDENTITY = _words("identity", SLOTS)
START = _words("start", SLOTS)
LENGTH = _words("length", SLOTS)
ORDER = _words("order", SLOTS)
STEPS = _words("steps", SLOTS)  # running step count of the table after this sequence
TAG = _words("tag", SLOTS)  # which sequence this is; stands for all that its writer put in
PRIORITY = _words("priority", SLOTS)  # the strategies' fields: see `priority_of`
VERSION = _words("version", SLOTS)
PUBLISH_AT = _words("publish_at", SLOTS)
TIMES = _words("times_sampled", SLOTS)

# Monotone.
NEXT_ORDER = _words("next_order")
LIVE_FROM = _words("live_from")
STEP_TOTAL = _words("step_total")
SAMPLE_TOTAL = _words("sample_total")
UPDATES = _words("updates")
EXITS = _words("exits")

# Derived: recomputed from the truth by `rebuild`.
DERIVED = len(_names)
MAP = _words("map", IDENTITIES)  # slot + 1 of the sequence that is there
CLAIMED = _words("claimed", IDENTITIES)  # slot + 1 of the one being written
ROW = _words("row_map", ROWS)
LIVE_STEPS = _words("live_steps")
WRITING_STEPS = _words("writing_steps")
PRIORITY_SUM = _words("priority_sum")
DERIVED_END = len(_names)

# Data: a row holds its sequence's tag and how often `update` has written it.
DATA = _words("data", ROWS)
DATA_END = len(_names)

# Private: a process's notes of the reservations it has open.
PRIVATE = len(_names)
NOTE = _words("note", PROCESSES * NOTES)  # slot + 1
NOTE_GENERATION = _words("note_generation", PROCESSES * NOTES)
NOTE_CLAIM = _words("note_claim", PROCESSES * NOTES)

# Ghost.
GHOST = len(_names)
FATE = _words("ideal", TAGS)
HANDED = _words("handed_out", TAGS)  # how often a taker received it
BORN_STEPS = _words("ideal_steps")
SAMPLES_OUT = _words("samples_out")
TOTAL = len(_names)

MONOTONE = frozenset(
    [
        NEXT_ORDER,
        LIVE_FROM,
        STEP_TOTAL,
        SAMPLE_TOTAL,
        UPDATES,
        EXITS,
        *range(GENERATION, GENERATION + SLOTS),
    ]
)
HIGHEST, OWN, CHANGED = 7, 1, 2


def priority_of(tag: int, kind: int = OWN) -> int:
    """A priority that shows whose it is: the tag, and whether first, updated or 'highest'."""
    return tag * 8 + kind


def data_of(tag: int, updates: int = 0) -> int:
    """A row's content: whose it is and how often it has been updated (0 to 3)."""
    return tag * 4 + updates


def describe(address: int, value: int) -> str:
    """``state[1] = LIVE``, for stories."""
    name = _names[address]
    text = STATE_NAMES[value] if STATE <= address < STATE + SLOTS else str(value)
    if FATE <= address < FATE + TAGS:
        text = ("unborn", "there", "gone")[value]
    return f"{name} = {text}"


def difference(before: bytes, after: bytes) -> str:
    """What changed from one memory to the next, ghosts in brackets, derived words left out."""
    told: list[str] = []
    ghosts: list[str] = []
    for address, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new or DERIVED <= address < DERIVED_END or PRIVATE <= address < GHOST:
            continue
        (ghosts if address >= GHOST else told).append(describe(address, new))
    text = ", ".join(told)
    return f"{text} [{', '.join(ghosts)}]" if ghosts else text


class Store(NamedTuple):
    """One store: the words it changes and the ghosts that change at the same instant.

    A vector store has several words, and a crash may cut it off after *any* subset of them;
    its ghosts belong to the last.
    """

    changes: tuple[tuple[int, int], ...]
    ghosts: tuple[tuple[int, int], ...] = ()

    def apply(self, words: bytearray) -> None:
        for address, value in self.changes:
            words[address] = value
        for address, value in self.ghosts:
            words[address] = value

    def parts(self) -> Iterator[Store]:
        """What a crash may leave of it, short of all."""
        for count in range(1, len(self.changes)):
            for some in combinations(self.changes, count):
                yield Store(some, self.ghosts if self.changes[-1] in some else ())

    @property
    def is_data(self) -> bool:
        """Whether somebody without the lock may be reading what this changes."""
        return DATA <= self.changes[0][0] < DATA_END


class Section:
    """Runs a critical section on a copy of the memory and records each store it makes.

    The lock keeps everybody else from the index, so a section's stores depend only on what it
    found when it began: the code of a section is plain Python, run at once, and the machine then
    replays its stores with a possible crash after each.
    """

    def __init__(self, words: bytes) -> None:
        self.words = bytearray(words)
        self.stores: list[Store] = []
        self.wrong = ""

    def put(self, address: int, value: int, *ghosts: tuple[int, int]) -> None:
        """Store one word. Storing the value already there is left out: nobody can tell."""
        if self.words[address] == value and not ghosts:
            return
        if address in MONOTONE and value < self.words[address]:
            self.wrong = f"a monotone word goes back: {describe(address, value)}"
        self._record(Store(((address, value),), ghosts))

    def vector(self, pairs: Iterable[tuple[int, int]], *ghosts: tuple[int, int]) -> None:
        """One vector (or fancy-index) store of several words: no order among them."""
        self._record(Store(tuple(pairs), ghosts))

    def _record(self, store: Store) -> None:
        store.apply(self.words)
        self.stores.append(store)
