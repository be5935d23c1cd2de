"""Recompute everything derived from the slot table.

It runs when the lock's last holder left DIRTY set (it died, or an exception cut it off), when a
table is cleared, and at the first attachment to a file. It reads the slot table and the
counters that only rise, nothing else; it may itself be cut off after any store and run again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from shmtable.index import fields as f
from shmtable.index.layout import bucket_count
from shmtable.index.owners import owner_is_gone
from shmtable.shm.header import DIRTY
from shmtable.types import Int64Array

if TYPE_CHECKING:
    from shmtable.index.manager import Index

_MOST = 1 << 62  # of anything that is counted: rising by one at a time, nothing gets there


def rebuild_locked(
    index: Index, rebuild_strategies: Callable[[], None], gone_before: int | None
) -> None:
    """Settle what was cut off, then derive lists, map, gaps and counts afresh."""
    words, arrays = index.words, index.arrays
    words[DIRTY] = 1
    words[f.SLOT_HIGH] = max(words[f.SLOT_HIGH], 1)
    _settle_locked(index, gone_before)
    states = arrays.slots[: words[f.SLOT_HIGH], f.STATE]
    live = np.flatnonzero(states == f.LIVE)
    writing = np.flatnonzero(states == f.WRITING)
    named = np.concatenate([live, writing])
    occupied = np.flatnonzero(states != f.FREE)
    _count_locked(index, live, writing)
    _link_by_order_locked(index, live)
    free = np.flatnonzero(states[1:] == f.FREE) + 1
    arrays.free[: len(free)] = free[::-1]  # the lowest is taken first
    words[f.FREE_COUNT] = len(free)
    ends = arrays.slots[occupied, f.START] + arrays.slots[occupied, f.SPAN]
    words[f.ROW_HIGH] = int(ends.max(initial=0))
    index.extents.rebuild_locked(occupied)
    if gone_before is not None:
        _map_rows_locked(index, occupied)
    # A map that was being enlarged when its writer died may have either size.
    index.identities.rebuild_locked(named, max(words[f.BUCKETS], bucket_count(len(named))))
    rebuild_strategies()
    index.ring()
    words[DIRTY] = 0


def _map_rows_locked(index: Index, occupied: Int64Array) -> None:
    """Which slot each row belongs to.

    Writers store it before they commit, so a crash leaves it whole; a file that the system did
    not finish writing may not have it. It takes longer than all the rest, hence not every time.
    """
    slots, row_slot = index.arrays.slots, index.arrays.row_slot
    row_slot[: index.words[f.ROW_HIGH]] = 0
    for slot in occupied.tolist():
        start = slots[slot, f.START]
        row_slot[start : start + slots[slot, f.LENGTH]] = slot


def _settle_locked(index: Index, gone_before: int | None) -> None:
    """Finish or undo what a commit point decided: the only changes to the slot table here."""
    words, slots = index.words, index.arrays.slots[: index.words[f.SLOT_HIGH]]
    words[f.EXITS] += 1  # whatever leaves below
    _free(slots, _impossible(slots, index.arrays.notes, words[f.RESERVED_ROWS]))
    _finish_publishing(index, slots)
    cleared = (slots[:, f.STATE] == f.LIVE) & (slots[:, f.ORDER] < words[f.LIVE_FROM])
    writing = np.flatnonzero(np.isin(slots[:, f.STATE], (f.WRITING, f.LOADED)))
    owners = index.arrays.notes[writing, f.OWNER_ATTACHMENT]
    dead = [
        slot
        for slot, owner in zip(writing.tolist(), owners.tolist(), strict=True)
        if (gone_before is not None and owner < gone_before) or owner_is_gone(index.arrays, slot)
    ]
    live = np.flatnonzero((slots[:, f.STATE] == f.LIVE) & ~cleared)
    _free(slots, np.flatnonzero(cleared))
    _free(slots, np.array(dead, np.int64))
    # A replacement became live and its predecessor had not gone yet: the later one counts.
    by_identity = live[np.lexsort((slots[live, f.ORDER], slots[live, f.IDENTITY]))]
    same = slots[by_identity[1:], f.IDENTITY] == slots[by_identity[:-1], f.IDENTITY]
    _free(slots, by_identity[:-1][same])
    live = np.flatnonzero(slots[:, f.STATE] == f.LIVE)
    orders = slots[live, f.ORDER]
    steps = index.arrays.notes[live, f.STEPS_AT]
    words[f.NEXT_ORDER] = max(words[f.NEXT_ORDER], int(orders.max(initial=-1)) + 1)
    words[f.STEP_TOTAL] = max(words[f.STEP_TOTAL], int(steps.max(initial=0)))
    versions = slots[live, f.VERSION]
    words[f.UPDATES] = max(words[f.UPDATES], int(versions.max(initial=0)))
    sequences = index.arrays.notes[live, f.SEQUENCES_AT]
    words[f.SEQUENCE_TOTAL] = max(words[f.SEQUENCE_TOTAL], int(sequences.max(initial=0)))


def _finish_publishing(index: Index, slots: Int64Array) -> None:
    """Loaded sequences whose number LIVE_FROM has reached are live."""
    loaded = np.flatnonzero(slots[:, f.STATE] == f.LOADED)
    reached = index.arrays.notes[loaded, f.PUBLISH_AT] == index.words[f.LIVE_FROM]
    slots[loaded[reached], f.STATE] = f.LIVE


def _impossible(slots: Int64Array, notes: Int64Array, rows: int) -> Int64Array:
    """Slots that no table's history explains: a damaged file's. They cost their sequence only."""
    strange = (slots[:, f.GENERATION] < 0) | (slots[:, f.GENERATION] >= _MOST)
    slots[strange, f.GENERATION] = 0
    states, starts, spans = slots[:, f.STATE], slots[:, f.START], slots[:, f.SPAN]
    lengths = slots[:, f.LENGTH]
    sound = np.isin(states, (f.WRITING, f.LIVE, f.LOADED)) & ~strange
    totals = notes[: len(slots), [f.STEPS_AT, f.SEQUENCES_AT]].T
    for numbers in (slots[:, f.ORDER], slots[:, f.VERSION], *totals):
        sound &= (states != f.LIVE) | ((numbers >= 0) & (numbers < _MOST))
    sound &= (lengths >= 1) & (lengths <= spans) & (spans <= rows)
    sound &= (starts >= 0) & (starts <= rows - spans)
    sound &= (slots[:, f.VERSION] >= 0) & (slots[:, f.VERSION] < 1 << 62)
    sound[0] = False
    kept = np.flatnonzero(sound)
    kept = kept[np.argsort(starts[kept], kind="stable")]
    ends = np.maximum.accumulate(np.append(0, (starts + spans)[kept]))
    sound[kept[starts[kept] < ends[:-1]]] = False
    return np.flatnonzero((states != f.FREE) & ~sound)


def _free(slots: Int64Array, leaving: Int64Array) -> None:
    # Generations of all before the state of any: a slot cut off in between is still LIVE or
    # WRITING for the same reason as before, and is freed again with yet another generation.
    slots[leaving, f.GENERATION] += 1
    slots[leaving, f.STATE] = f.FREE


def _count_locked(index: Index, live: Int64Array, writing: Int64Array) -> None:
    words, slots = index.words, index.arrays.slots
    words[f.LIVE_COUNT] = len(live)
    words[f.LIVE_STEPS] = int(slots[live, f.LENGTH].sum())
    words[f.WRITING_COUNT] = len(writing)
    words[f.WRITING_STEPS] = int(slots[writing, f.LENGTH].sum())
    lengths = slots[np.concatenate([live, writing]), f.LENGTH]
    words[f.LONGEST] = max(words[f.LONGEST], int(lengths.max(initial=0)))


def _link_by_order_locked(index: Index, live: Int64Array) -> None:
    arrays = index.arrays
    nodes = np.append(0, live[np.argsort(arrays.slots[live, f.ORDER])])
    arrays.links[nodes, f.OLDER] = np.roll(nodes, 1)
    arrays.links[nodes, f.NEWER] = np.roll(nodes, -1)
    arrays.live[: len(live)] = nodes[1:]
    arrays.links[nodes[1:], f.PLACE] = np.arange(len(live))
