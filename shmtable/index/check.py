"""Every invariant of the index, walked while the lock is held; findings, not exceptions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shmtable.index import fields as f
from shmtable.index.extents import bin_of
from shmtable.index.manager import Index
from shmtable.types import Finding, Int64Array


def findings_locked(index: Index) -> list[Finding]:
    """What is wrong with the index; empty when it is sound. Changes nothing."""
    high = index.words[f.SLOT_HIGH]
    states = index.arrays.slots[:high, f.STATE]
    found = []
    unknown = np.flatnonzero(~np.isin(states, (f.FREE, f.WRITING, f.LIVE, f.LOADED)))
    found += [Finding("state is known", f"slot {s} has state {states[s]}") for s in unknown]
    if states[0] != f.FREE:
        found.append(Finding("slot 0 is never given out", f"its state is {states[0]}"))
    live = np.flatnonzero(states == f.LIVE)
    writing = np.flatnonzero(states == f.WRITING)
    named = np.concatenate([live, writing])
    occupied = np.concatenate([named, np.flatnonzero(states == f.LOADED)])
    found += _truth(index, live, occupied)
    found += _counts(index, live, writing, len(occupied))
    found += _extents(index, occupied)
    found += _lists(index, live)
    found += _identities(index, named)
    found += _rows(index, live)
    return found


def _truth(index: Index, live: Int64Array, occupied: Int64Array) -> Iterator[Finding]:
    slots, words = index.arrays.slots, index.words
    lengths, spans = slots[occupied, f.LENGTH], slots[occupied, f.SPAN]
    if (lengths < 1).any() or (spans < lengths).any():
        yield Finding("1 <= length <= span", f"lengths {lengths}, spans {spans}")
    starts = slots[occupied, f.START]
    by_start = np.argsort(starts)
    ends = (starts + spans)[by_start]
    overlap = np.flatnonzero(starts[by_start][1:] < ends[:-1])
    for place in overlap:
        yield Finding(
            "extents do not overlap",
            f"slots {occupied[by_start[place]]} and {occupied[by_start[place + 1]]}",
        )
    if len(ends) and int(ends.max()) > words[f.RESERVED_ROWS]:
        yield Finding("rows in use are reserved", f"{ends.max()} > {words[f.RESERVED_ROWS]}")
    if words[f.SLOT_HIGH] > words[f.RESERVED_SLOTS]:
        yield Finding("slots in use are reserved", f"{words[f.SLOT_HIGH]}")
    orders = slots[live, f.ORDER]
    if len(np.unique(orders)) != len(orders):
        yield Finding("orders are unique", f"{np.sort(orders)}")
    if len(orders) and (orders.max() >= words[f.NEXT_ORDER] or orders.min() < words[f.LIVE_FROM]):
        yield Finding(
            "live_from <= order < next_order",
            f"{orders.min()} to {orders.max()}, {words[f.LIVE_FROM]}, {words[f.NEXT_ORDER]}",
        )
    late = live[slots[live, f.VERSION] > words[f.UPDATES]]
    if len(late):
        yield Finding("no version is later than the last update", f"slots {late}")
    identities = slots[live, f.IDENTITY]
    if len(np.unique(identities)) != len(identities):
        yield Finding("identities are unique", f"{len(live)} sequences")


def _counts(
    index: Index, live: Int64Array, writing: Int64Array, occupied: int
) -> Iterator[Finding]:
    slots, words = index.arrays.slots, index.words
    expected = {
        "live count": (f.LIVE_COUNT, len(live)),
        "live steps": (f.LIVE_STEPS, int(slots[live, f.LENGTH].sum())),
        "writing count": (f.WRITING_COUNT, len(writing)),
        "writing steps": (f.WRITING_STEPS, int(slots[writing, f.LENGTH].sum())),
        "free count": (f.FREE_COUNT, words[f.SLOT_HIGH] - 1 - occupied),
    }
    for name, (word, count) in expected.items():
        if words[word] != count:
            yield Finding(f"{name} is that of the slots", f"{words[word]} instead of {count}")
    free = np.sort(index.arrays.free[: words[f.FREE_COUNT]])
    states = slots[1 : words[f.SLOT_HIGH], f.STATE]
    if not np.array_equal(free, np.flatnonzero(states == f.FREE) + 1):
        yield Finding("the free list holds each free slot once", f"{free}")
    if words[f.LIVE_STEPS] > words[f.MAXLEN]:
        yield Finding("size <= maxlen", f"{words[f.LIVE_STEPS]} > {words[f.MAXLEN]}")
    if words[f.LIVE_COUNT] > words[f.MAX_SEQUENCES]:
        detail = f"{words[f.LIVE_COUNT]} > {words[f.MAX_SEQUENCES]}"
        yield Finding("sequences <= max_sequences", detail)
    longest = int(slots[live, f.LENGTH].max(initial=0))
    if longest > words[f.LONGEST]:
        yield Finding("longest bounds every length", f"{words[f.LONGEST]} < {longest}")


def _extents(index: Index, occupied: Int64Array) -> Iterator[Finding]:
    slots, links = index.arrays.slots, index.arrays.links
    nodes = np.append(0, occupied[np.argsort(slots[occupied, f.START])])
    if not np.array_equal(links[nodes, f.RIGHT], np.roll(nodes, -1)):
        yield Finding("neighbours by address", "RIGHT does not run through the extents")
        return
    if not np.array_equal(links[nodes, f.LEFT], np.roll(nodes, 1)):
        yield Finding("neighbours by address", "LEFT does not run through the extents")
        return
    ends = slots[nodes, f.START] + slots[nodes, f.SPAN]
    ends[0] = 0
    gaps = np.append(slots[nodes[1:], f.START] - ends[:-1], 0)
    if not np.array_equal(gaps, links[nodes, f.GAP]):
        yield Finding("gaps are what lies between extents", f"{links[nodes, f.GAP]} not {gaps}")
    expected = {(bin_of(int(g)), int(n)) for n, g in zip(nodes, gaps, strict=True) if g}
    if expected != set(_binned(index)):
        yield Finding("every gap is in the bin of its size", f"{set(_binned(index)) ^ expected}")
    if int(ends.max(initial=0)) > index.words[f.ROW_HIGH]:
        yield Finding("row_high bounds every extent", f"{index.words[f.ROW_HIGH]}")


def _binned(index: Index) -> Iterator[tuple[int, int]]:
    arrays = index.arrays
    for number in range(504):
        entry, previous = int(arrays.bin_words[number]), 0
        marked = bool(arrays.bin_words[504 + (number >> 6)] >> (number & 63) & 1)
        if marked != bool(entry):
            yield number, -1
        while entry:
            # A list that runs in circles comes to some entry from another one than it says.
            known = 0 < entry <= len(arrays.links)
            if not known or arrays.links[entry - 1, f.BIN_PREVIOUS] != previous:
                yield number, -1
                break
            yield number, entry - 1
            entry, previous = int(arrays.links[entry - 1, f.BIN_NEXT]), entry


def _lists(index: Index, live: Int64Array) -> Iterator[Finding]:
    arrays = index.arrays
    nodes = np.append(0, live[np.argsort(arrays.slots[live, f.ORDER])])
    newer, older = arrays.links[nodes, f.NEWER], arrays.links[nodes, f.OLDER]
    if not (np.array_equal(newer, np.roll(nodes, -1)) and np.array_equal(older, np.roll(nodes, 1))):
        yield Finding("the order list runs through the live slots", f"{newer} {older}")
    listed = arrays.live[: len(live)]
    if not np.array_equal(np.sort(listed), live):
        yield Finding("the live array holds each live slot once", f"{listed} not {live}")
    elif not np.array_equal(arrays.links[listed, f.PLACE], np.arange(len(live))):
        yield Finding("a live slot knows its place", f"{arrays.links[listed, f.PLACE]}")


def _identities(index: Index, occupied: Int64Array) -> Iterator[Finding]:
    arrays, words = index.arrays, index.words
    buckets = np.frombuffer(arrays.bucket_words, np.int64)[: words[f.BUCKETS]]
    if not np.array_equal(np.sort(buckets[buckets != 0]), np.sort(occupied)):
        yield Finding("the identity map holds each occupied slot once", f"{buckets}")
    for slot in occupied.tolist():
        if slot not in index.identities.find_locked(int(arrays.slots[slot, f.IDENTITY])):
            yield Finding("every identity is found", f"slot {slot}")


def _rows(index: Index, live: Int64Array) -> Iterator[Finding]:
    arrays = index.arrays
    for slot in live.tolist():
        start, length = arrays.slots[slot, f.START], arrays.slots[slot, f.LENGTH]
        if (arrays.row_slot[start : start + length] != slot).any():
            yield Finding("a live row leads to its slot", f"slot {slot}, rows {start}+{length}")
