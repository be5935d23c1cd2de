"""Whose reservation is it, and is anybody still there to finish it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

from shmtable.index import fields as f
from shmtable.index.arrays import Arrays
from shmtable.index.attachments import can_tell, is_let_go
from shmtable.shm import process

# All processes together: looking through a million slots takes some milliseconds.
SWEEP_NS = 5_000_000_000


class Reservation(NamedTuple):
    """A WRITING (or LOADED) slot of this process: the rows are ours to fill.

    ``replaces`` is the live slot that goes when this one is committed, with its generation; 0
    for none. ``live_from`` is the counter's value when it was reserved.
    """

    slot: int
    generation: int
    start: int
    length: int
    replaces: int
    replaced_generation: int
    live_from: int


def owner_is_gone(arrays: Arrays, slot: int) -> bool:
    """Whether the slot's owner has certainly ended; when in doubt, it lives.

    The kernel proves it of another process; of this one's attachments it is known which are left.

    Believing a slow owner dead would let it copy into rows that somebody else has committed
    meanwhile, and nothing could detect that. Where processes of several pid namespaces share a
    table, which the portable lock allows, a number says nothing.
    """
    if not can_tell(arrays.words):
        return False
    base = slot * f.SLOT_WORDS
    notes = arrays.note_words
    owner = notes[base + f.OWNER_PID], notes[base + f.OWNER_START]
    return process.is_gone(*owner) or is_let_go(
        arrays.words, *owner, notes[base + f.OWNER_ATTACHMENT]
    )


class Reservations(dict[int, tuple[int, FrameType]]):
    """The open reservations of this process: by slot, the call that will finish it, and its thread.

    A call that is interrupted gives its slot back on the way out. Where even that is interrupted
    (or the thread dies) the slot is abandoned: known by its frame being on no stack any more.
    """

    def open(self, slot: int, caller: FrameType) -> None:
        """Note a reservation, before it becomes real, and the call that will finish it."""
        self[slot] = (threading.get_ident(), caller)

    def close(self, slot: int) -> None:
        """Forget a reservation that was committed, given back or lost."""
        self.pop(slot, None)

    def of(self, caller: FrameType) -> list[int]:
        """The slots that a call has open."""
        return [slot for slot, entry in self.items() if entry[1] is caller]

    def abandoned(self) -> list[int]:
        """The slots whose call is on no thread's stack any more."""
        return [slot for slot, entry in self.items() if not _is_running(*entry)]


def sweep_is_due(words: memoryview, own: int) -> bool:
    """Whether somebody else has unfinished slots and nobody has looked after them for a while.

    To be followed by a sweep: it is noted, with one store, on which nothing depends.

    Args:
        words: the header's; the caller holds the lock.
        own: unfinished slots of this process.
    """
    if words[f.SLOT_HIGH] - 1 - words[f.FREE_COUNT] - words[f.LIVE_COUNT] <= own:
        return False
    now, due = time.monotonic_ns(), words[f.SWEEP_AT_NS]
    # The clock of another run of the machine says nothing.
    if now < due < now + 2 * SWEEP_NS:
        return False
    words[f.SWEEP_AT_NS] = now + SWEEP_NS
    return True


class Sweeps:
    """When to look for what nobody will finish: at most a hundredth of the time goes into it."""

    def __init__(self) -> None:
        self._next_ns = 0

    def run(self, sweep: Callable[[], int | None]) -> int:
        """What ``sweep`` returns, or 0 when the last one is not long enough ago.

        Args:
            sweep: looks for what can be taken back; returns how many slots it took.
        """
        began_ns = time.monotonic_ns()
        if began_ns < self._next_ns:
            return 0
        found = sweep()
        ended_ns = time.monotonic_ns()
        self._next_ns = ended_ns + 100 * (ended_ns - began_ns)
        return found or 0


def _is_running(thread: int, caller: FrameType) -> bool:
    frame: FrameType | None
    if thread == threading.get_ident():
        frame = sys._getframe()
    else:
        frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame is caller:
            return True
        frame = frame.f_back
    return False
