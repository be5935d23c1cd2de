"""Tables on disk: bringing them there, and making sense of one after a stop of the machine."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from shmtable.index import fields as f
from shmtable.index import refuse_impossible
from shmtable.protocols.core import Core
from shmtable.protocols.header import extra_rows
from shmtable.shm.arena import Arena

_NOBODY_LEFT = 1 << 62  # every attachment has a lower number


class Found(NamedTuple):
    """What recovery has kept and what not.

    Attributes:
        sequences, transitions: kept.
        unfinished: sequences that were being written.
        overwritten: sequences whose rows others had taken, beyond the limits, or impossible.
    """

    sequences: int
    transitions: int
    unfinished: int
    overwritten: int


def flush(core: Core) -> None:
    """Bring the table to the disk: first the rows, then the index that leads to them."""
    if core.arena.directory is None:
        return
    rows = core.layout.regions["row_slot"].offset
    core.arena.sync([(rows, core.arena.total_bytes - rows), (0, rows)])


def attach(
    name: str, directory: str | None, recover: bool, classes: Mapping[str, type[Any]]
) -> Core:
    """Open a named table; see ``ArrayMemoryTable.attach``."""
    found: list[Found] = []
    arena = Arena.attach(
        name,
        directory=directory,
        recover=(lambda arena: found.append(_recover(arena, classes))) if recover else None,
    )
    core = Core.open(arena, classes)
    for kept in found:
        warnings.warn(
            f"{arena.where} was in use when the machine stopped: {kept.sequences} sequences with "
            f"{kept.transitions} transitions are kept, {kept.unfinished} that were being written "
            f"and {kept.overwritten} that had been overwritten are not; rows added after the last "
            "flush() may be others than were added",
            UserWarning,
            stacklevel=3,
        )
    return core


def _recover(arena: Arena, classes: Mapping[str, type[Any]]) -> Found:
    """Make an index of what is there. Nobody else can reach the file yet, so no lock is held.

    Its pages may be of different moments. What counts is the slot table; the newest sequence is
    right where two lay claim to a row, because the older one had left by then.
    """
    core = Core(arena, classes)
    words, layout = arena.words, core.layout
    refuse_impossible(words, layout, extra_rows(core.schema), arena.where)
    reserved = [(0, layout.regions["bins"].offset), *layout.once()]
    for per, mark in (
        ("row", f.RESERVED_ROWS),
        ("slot", f.RESERVED_SLOTS),
        ("bucket", f.RESERVED_BUCKETS),
    ):
        reserved += layout.spans(per, 0, words[mark])
    # A slot beyond the mark must be as a slot is that was never used.
    slots = layout.regions["slots"]
    used = words[f.RESERVED_SLOTS] * slots.item_bytes
    arena.settle(reserved, (slots.offset + used, slots.bytes - used))
    words[f.SLOT_HIGH] = words[f.RESERVED_SLOTS]
    states = core.arrays.slots[: words[f.SLOT_HIGH], f.STATE]
    live = np.count_nonzero(states == f.LIVE)
    unfinished = np.count_nonzero((states == f.WRITING) | (states == f.LOADED))
    _free_overwritten(core)
    core.index.rebuild_locked(gone_before=_NOBODY_LEFT)
    while words[f.LIVE_STEPS] > words[f.MAXLEN] or words[f.LIVE_COUNT] > words[f.MAX_SEQUENCES]:
        core.index.eject_locked([core.view.oldest()])
    kept = words[f.LIVE_COUNT]
    return Found(kept, words[f.LIVE_STEPS], int(unfinished), int(live) - kept)


def _free_overwritten(core: Core) -> None:
    """Of sequences that share rows, free all but the newest; unfinished ones are newer yet."""
    slots = core.arrays.slots[: core.arena.words[f.SLOT_HIGH]]
    orders = np.where(slots[:, f.STATE] == f.LIVE, slots[:, f.ORDER], np.iinfo(np.int64).max)
    while True:
        taken = np.flatnonzero(slots[:, f.STATE] != f.FREE)
        taken = taken[np.argsort(slots[taken, f.START], kind="stable")]
        ends = slots[taken, f.START] + slots[taken, f.SPAN]
        shared = np.flatnonzero(slots[taken[1:], f.START] < ends[:-1])
        if not len(shared):
            return
        left, right = taken[shared], taken[shared + 1]
        slots[np.where(orders[left] < orders[right], left, right), f.STATE] = f.FREE
