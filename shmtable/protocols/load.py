"""Restoring: a file's sequences take the place of the table's.

1. For each sequence: under the lock, a slot and rows, state LOADED; then, holding nothing, the
   copy. The table goes on as it is: nobody sees what is being loaded.
2. Under the lock: one store makes all of them live and all others gone.

A process that dies in 1 leaves LOADED slots, taken back like those of a dead writer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Protocol, TypeVar

import numpy as np

from shmtable.errors import CapacityError
from shmtable.index import Blocked, Growth, Request, Reservation
from shmtable.protocols.core import Core
from shmtable.types import Int64Array


class Extent(Protocol):
    """What a sequence needs: see ``columns.Prepared``, which is one."""

    @property
    def length(self) -> int: ...

    @property
    def span(self) -> int: ...

    @property
    def extra(self) -> int: ...


E = TypeVar("E", bound=Extent)


def load(
    core: Core,
    sequences: Iterable[tuple[int, E]],
    fill: Callable[[Core, Reservation, E], None],
    *,
    on_publish: Callable[[Int64Array], None] | None = None,
) -> int:
    """Replace the table's content; on any error it stays as it was.

    Args:
        core: the table.
        sequences: identity and what it needs, oldest first; identities are unique, and the
            transitions together at most ``maxlen``. Read once, one at a time.
        fill: called for each with its reservation, holding nothing; sees to it that the rows are
            written before ``sequences`` ends (``protocols.write.copy`` does so at once).
        on_publish: called under the lock before the change becomes real, with the slots in the
            order given; fills in fields of theirs that the table itself does not know.

    Returns:
        The number of sequences loaded.

    Raises:
        CapacityError: the address space does not hold old and new content side by side.
        SharedMemoryError: neither does the memory.
    """
    slots: list[int] = []
    # A forked child joins here: by the number it gets, it knows its reservations.
    core.guard.run(core.random_locked)
    in_use = core.arena.in_use()  # as in ``write``
    try:
        for identity, sequence in sequences:
            request = Request(identity, sequence.length, sequence.span, sequence.extra, False)
            reservation = _reserve(core, request, sys._getframe())
            slots.append(reservation.slot)
            fill(core, reservation, sequence)
        core.guard.run(_publish_locked, core, slots, on_publish)
    except BaseException:
        core.guard.run(core.index.abort_of_locked, sys._getframe())
        raise
    finally:
        del in_use
    return len(slots)


def _reserve(core: Core, request: Request, caller: FrameType) -> Reservation:
    while True:
        outcome = core.guard.run(core.index.load_locked, request, caller)
        if isinstance(outcome, Reservation):
            return outcome
        layout = core.layout
        room = isinstance(outcome, Growth) and (
            outcome.rows <= layout.capacity_rows and outcome.slots <= layout.capacity_slots
        )
        if isinstance(outcome, Blocked) or not room:
            raise CapacityError(
                "the address space taken at creation does not hold the table's content and the "
                "file's side by side; clear() the table first, or make a new one"
            )
        core.grow(outcome)


def _publish_locked(
    core: Core, slots: list[int], on_publish: Callable[[Int64Array], None] | None
) -> None:
    if on_publish is not None:
        on_publish(np.array(slots, np.int64))
    core.index.publish_locked(slots)
