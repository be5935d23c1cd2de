"""A file's content takes the place of the table's: for everybody at once, or not at all.

The new sequences wait in LOADED slots beside the live ones: room for many of them is taken under
one hold of the lock, each with a commit point of its own. Publishing stores into each of them
its order and the number that LIVE_FROM is about to get, and then LIVE_FROM itself: that store is
the commit point. From there on the old sequences count as gone and the new ones as live, and
``rebuild`` carries that out, whether it runs here or after a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np

from shmtable.index import fields as f
from shmtable.index.owners import Reservation
from shmtable.index.plan import Blocked, Growth, Leaving, Request, Victims, duplicate
from shmtable.shm.header import DIRTY

if TYPE_CHECKING:
    from shmtable.index.manager import Index


def load_locked(
    index: Index, requests: Sequence[Request], caller: FrameType
) -> list[Reservation] | Growth | Blocked:
    """Take slots and rows for all of them, the rows of each right behind those of the one before.

    Together they want one wide gap: found once, and files are mostly read without a seek.
    """
    span = sum(request.span for request in requests)
    node = index.plan.locate_locked(span)
    if node < 0:
        return Blocked("no gap is wide enough")
    growth = index.plan.growth_locked(span, Leaving([], False), len(requests))
    if growth is not None:
        return growth
    index.words[DIRTY] = 1
    reservations = []
    for request in requests:
        reservation = index.take_slot_locked(request, f.LOADED, node, 0, caller)
        reservations.append(reservation)
        node = reservation.slot
    index.words[DIRTY] = 0
    return reservations


def publish_locked(index: Index, slots: list[int]) -> None:
    """Make exactly these loaded slots the live ones, ordered as given."""
    words, arrays = index.words, index.arrays
    places = np.array(slots, np.int64)
    words[DIRTY] = 1
    words[f.SATURATED] = 0
    words[f.REMOVED] += words[f.LIVE_COUNT]
    # One more than the next order, so that it differs from every value LIVE_FROM has had.
    first = words[f.NEXT_ORDER] + 1
    words[f.NEXT_ORDER] = first + len(slots)
    steps = np.cumsum(arrays.slots[places, f.LENGTH]) + words[f.STEP_TOTAL]
    arrays.slots[places, f.ORDER] = np.arange(first, first + len(slots))
    arrays.slots[places, f.VERSION] = 0
    arrays.notes[places, f.STEPS_AT] = steps
    sequences = words[f.SEQUENCE_TOTAL] + 1 + np.arange(len(slots))
    arrays.notes[places, f.SEQUENCES_AT] = sequences
    arrays.notes[places, f.PUBLISH_AT] = first
    words[f.LIVE_FROM] = first  # the commit point; the totals follow from STEPS_AT and SEQUENCES_AT
    index.rebuild_locked()


# What a restored table means for those who were writing into the one before. Their room is still
# theirs, but the identity may be taken now, and the limit reached.


def replaced_since_locked(index: Index, slot: int, replace: bool) -> tuple[int, int]:
    """The live slot of the same identity that a file has brought, with its generation.

    Raises:
        DuplicateIdentityError: there is one, and replacing was not asked for.
    """
    slots = index.arrays.slot_words
    identity = slots[slot * f.SLOT_WORDS + f.IDENTITY]
    live, _ = index.identities.find_locked(identity)
    if live and not replace:
        raise duplicate(identity, True)
    return live, slots[live * f.SLOT_WORDS + f.GENERATION]


def leaving_since_locked(index: Index, old: int, victims: Victims | None) -> list[int]:
    """Who has to go, beside ``old``, for the writer to keep to the limits."""
    words = index.words
    old_steps = index.arrays.slot_words[old * f.SLOT_WORDS + f.LENGTH] if old else 0
    over = words[f.LIVE_STEPS] + words[f.WRITING_STEPS] - old_steps - words[f.MAXLEN]
    crowd = words[f.LIVE_COUNT] + words[f.WRITING_COUNT] - (1 if old else 0)
    if crowd > words[f.MAX_SEQUENCES]:
        over = max(over, 1)  # each writer of the former table makes room for itself
    available = words[f.LIVE_STEPS] - old_steps
    if over <= 0 or victims is None or not available:
        return []
    return index.plan.ask_locked(victims, min(over, available), old, old_steps)
