"""Restoring: a file's sequences take the place of the table's.

1. For some hundred sequences at a time: under the lock, slots and rows, state LOADED; then,
   holding nothing, the copy. The table goes on as it is: nobody sees what is being loaded.
2. Under the lock: one store makes all of them live and all others gone.

A process that dies in 1 leaves LOADED slots, taken back like those of a dead writer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from types import FrameType

import numpy as np

from shmtable.errors import CapacityError
from shmtable.index import Growth, Request, Reservation
from shmtable.protocols.core import Core
from shmtable.protocols.device import settle
from shmtable.types import Int64Array

#: More in a batch would only make others wait for the lock longer at a time.
MOST_AT_ONCE = 256


def load(
    core: Core,
    batches: Iterable[Sequence[Request]],
    fill: Callable[[list[Reservation]], None],
    *,
    on_publish: Callable[[Int64Array], None] | None = None,
) -> int:
    """Replace the table's content; on any error it stays as it was.

    Args:
        core: the table.
        batches: what the sequences need, oldest first, at most ``MOST_AT_ONCE`` in a batch;
            identities are unique, and the transitions together at most ``maxlen``. Read once, one
            at a time.
        fill: called with the reservations of each batch, in order, holding nothing; writes the
            rows, and what the row map says of them, before it returns or ``batches`` ends.
        on_publish: called under the lock before the change becomes real, with the slots in the
            order given; fills in fields of theirs that the table itself does not know.

    Returns:
        The number of sequences loaded.

    Raises:
        CapacityError: the address space, or the device's memory taken at creation, does not hold
            old and new content side by side.
        SharedMemoryError: neither does the memory.
    """
    slots: list[int] = []
    # A forked child joins here: by the number it gets, it knows its reservations.
    core.guard.run(core.random_locked)
    in_use = core.arena.in_use()  # as in ``write``
    try:
        for batch in batches:
            reservations = _reserve(core, batch, sys._getframe())
            slots += [reservation.slot for reservation in reservations]
            fill(reservations)
        core.guard.run(_publish_locked, core, slots, on_publish)
    except BaseException:
        settle(core.memory)  # before the rows are somebody else's
        core.guard.run(core.index.abort_of_locked, sys._getframe())
        raise
    finally:
        del in_use
    return len(slots)


def _reserve(core: Core, batch: Sequence[Request], caller: FrameType) -> list[Reservation]:
    """Reserve all of a batch: together where a gap is wide enough, else in ever smaller parts."""
    layout = core.layout
    reservations: list[Reservation] = []
    parts = [batch]
    while parts:
        part = parts.pop()
        outcome = core.guard.run(core.index.load_locked, part, caller)
        if isinstance(outcome, list):
            reservations += outcome
        elif isinstance(outcome, Growth) and (
            outcome.rows <= layout.capacity_rows and outcome.slots <= layout.capacity_slots
        ):
            core.grow(outcome)
            parts.append(part)
        elif len(part) > 1:
            half = len(part) // 2
            parts += [part[half:], part[:half]]
        else:
            memory = core.memory
            taken = "address space" if memory is None else f"memory on {memory.backend.device}"
            raise CapacityError(
                f"the {taken} taken at creation does not hold the table's content and the "
                "file's side by side; clear() the table first, or make a new one"
            )
    return reservations


def _publish_locked(
    core: Core, slots: list[int], on_publish: Callable[[Int64Array], None] | None
) -> None:
    if on_publish is not None:
        on_publish(np.array(slots, np.int64))
    core.index.publish_locked(slots)
