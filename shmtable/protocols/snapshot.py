"""Which sequences are there: listed in a moment, to be copied while the table goes on.

Slots and generations are taken under the lock, everything else afterwards: what describes a slot
stays as it is while its generation does, so whoever copies compares generations at the end, as a
sample does. Nothing read from a slot is used before that comparison. Rows may be updated in place;
whoever copies them asks for the number of the last update before, and compares versions at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shmtable.index import fields as f
from shmtable.protocols.core import Core
from shmtable.types import BoolArray, Int64Array

# As the number of the last update: rows that have been copied change no more.
COPIED = 1 << 62


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Live sequences, oldest first; int64 [n] each, [n, 2] ``extra``.

    Attributes:
        slots, generations: tell whether a sequence is still there.
        identities, starts, lengths, orders, times_sampled: of the sequences.
        extra: bit i of the two words: stored column i brought one row more than the length.
    """

    slots: Int64Array
    generations: Int64Array
    identities: Int64Array
    starts: Int64Array
    lengths: Int64Array
    orders: Int64Array
    times_sampled: Int64Array
    extra: Int64Array

    def __len__(self) -> int:
        return len(self.slots)

    def only(self, which: Int64Array | BoolArray | slice) -> Snapshot:
        """Some of the sequences."""
        return Snapshot(**{name: values[which] for name, values in vars(self).items()})


def snapshot(core: Core) -> Snapshot:
    """List the live sequences."""
    slots, generations = core.guard.run(_live_locked, core)
    records, notes = core.arrays.slots, core.arrays.notes
    found = Snapshot(
        slots,
        generations,
        records[slots, f.IDENTITY],
        records[slots, f.START],
        records[slots, f.LENGTH],
        records[slots, f.ORDER],
        core.arrays.times_sampled[slots],
        notes[slots][:, [f.EXTRA, f.EXTRA_MORE]],
    )
    found = found.only(core.guard.run(current_locked, core, found))
    return found.only(np.argsort(found.orders))


def current_locked(core: Core, found: Snapshot) -> BoolArray:
    """bool [n], which sequences are still there, and so were there all the time."""
    current: BoolArray = core.arrays.slots[found.slots, f.GENERATION] == found.generations
    return current


def updates_locked(core: Core) -> int:
    """The number of the last update in place; to be asked before rows are copied."""
    updates: int = core.arena.words[f.UPDATES]
    return updates


def changed_locked(core: Core, found: Snapshot, updates: int) -> bool:
    """Whether rows of these sequences were updated after update number ``updates``."""
    if core.arena.words[f.UPDATES] <= updates:
        return False
    return bool((core.arrays.slots[found.slots, f.VERSION] > updates).any())


def _live_locked(core: Core) -> tuple[Int64Array, Int64Array]:
    slots = core.view.live_slots().copy()
    return slots, core.arrays.slots[slots, f.GENERATION]
