"""Which rows are free: gaps between extents, kept in bins by size.

Every occupied extent belongs to a slot, and the free rows behind it are that slot's ``GAP``; the
rows before the first extent are the gap of slot 0. The rows behind the last extent stay open and
are used only when no gap fits, so tables fill from the lowest address and touch no more memory
than they must. Gaps are binned by size, eight bins to each power of two, which makes finding,
splitting and merging a matter of a dozen loads and stores however many extents there are. The bin
structure is that of the two-level segregated fit (Masmano et al., 2004).

All of it is derived from the slot table; ``rebuild_locked`` does so.
"""

from __future__ import annotations

import numpy as np

from shmtable.index import fields as f
from shmtable.types import Int64Array

_SUB_BITS = 3  # eight bins per power of two: a gap is at most 1/8 larger than its bin's bound
_BITMAP = 504  # first word of the bitmap in the ``bins`` region
_BITMAP_WORDS = 8
_PROBES = 16  # members of the request's own bin that are looked at before a larger bin is taken


def bin_of(rows: int) -> int:
    """Number of the bin for a gap of ``rows`` (at least 1)."""
    if rows < 1 << _SUB_BITS:
        return rows
    power = rows.bit_length() - 1
    return ((power - _SUB_BITS + 1) << _SUB_BITS) + ((rows >> (power - _SUB_BITS)) & 7)


def _bins_of(rows: Int64Array) -> Int64Array:
    """``bin_of``, for many."""
    power = np.frexp(rows.astype(np.float64))[1].astype(np.int64) - 1
    power = np.maximum(power, _SUB_BITS)
    large = ((power - _SUB_BITS + 1) << _SUB_BITS) + ((rows >> (power - _SUB_BITS)) & 7)
    return np.where(rows < 1 << _SUB_BITS, rows, large)


class Extents:
    """The free rows. Every method needs the table lock.

    Entries of a bin's list are written as slot + 1, so that 0 can end it and slot 0 be in it.

    Args:
        slots: int64 words of the slot records.
        links: int64 words of the links.
        bins: uint64 words of the ``bins`` region.
    """

    def __init__(self, slots: memoryview, links: memoryview, bins: memoryview) -> None:
        self._slots = slots
        self._links = links
        self._bins = bins

    def end_locked(self, slot: int) -> int:
        """First row behind the slot's extent; 0 for slot 0."""
        if slot == 0:
            return 0
        base = slot * f.SLOT_WORDS
        return int(self._slots[base + f.START] + self._slots[base + f.SPAN])

    def last_end_locked(self) -> int:
        """First row behind the last extent: from here on everything is free."""
        return self.end_locked(self._links[f.LEFT])

    def locate_locked(self, span: int, limit: int) -> int:
        """The slot behind which ``span`` rows are free below row ``limit``; -1 for nowhere.

        Gaps come before the open end, and an exhaustive search only when nothing else is left.
        """
        node = self._find_locked(span, _PROBES)
        if node >= 0:
            return node
        if self.last_end_locked() + span <= limit:
            last: int = self._links[f.LEFT]
            return last
        return self._find_locked(span, limit)

    def _find_locked(self, span: int, probes: int) -> int:
        links, bins = self._links, self._bins
        number = bin_of(span)
        entry = bins[number]
        for _ in range(probes):
            if not entry:
                break
            base = (entry - 1) * f.LINK_WORDS
            if links[base + f.GAP] >= span:
                return int(entry - 1)
            entry = links[base + f.BIN_NEXT]
        # Every gap of a higher bin is large enough.
        number += 1
        word = number >> 6
        bits = bins[_BITMAP + word] >> (number & 63) << (number & 63)
        while not bits:
            word += 1
            if word == _BITMAP_WORDS:
                return -1
            bits = bins[_BITMAP + word]
        return int(bins[(word << 6) + (bits & -bits).bit_length() - 1] - 1)

    def place_locked(self, node: int, slot: int, span: int) -> None:
        """Enter ``slot``, whose START is the end of ``node``, into the list behind ``node``."""
        links = self._links
        base, left = slot * f.LINK_WORDS, node * f.LINK_WORDS
        right = links[left + f.RIGHT]
        if right or (node == 0 and links[f.LEFT]):
            gap = links[left + f.GAP]
            self._unbin_locked(node, gap)
            links[left + f.GAP] = 0
            links[base + f.GAP] = gap - span
            self._bin_locked(slot, gap - span)
        else:
            links[base + f.GAP] = 0
        links[base + f.LEFT] = node
        links[base + f.RIGHT] = right
        links[left + f.RIGHT] = slot
        links[right * f.LINK_WORDS + f.LEFT] = slot

    def release_locked(self, slot: int, span: int) -> None:
        """Give the rows of ``slot`` back: they join the gaps on both sides."""
        links = self._links
        base = slot * f.LINK_WORDS
        node, right = links[base + f.LEFT], links[base + f.RIGHT]
        left = node * f.LINK_WORDS
        before, behind = links[left + f.GAP], links[base + f.GAP]
        self._unbin_locked(node, before)
        self._unbin_locked(slot, behind)
        links[left + f.RIGHT] = right
        links[right * f.LINK_WORDS + f.LEFT] = node
        links[base + f.GAP] = 0
        joined = before + span + behind if right else 0
        links[left + f.GAP] = joined
        self._bin_locked(node, joined)

    def fits_locked(self, span: int, leaving: list[int], limit: int) -> bool:
        """Whether ``span`` rows are free below row ``limit`` once ``leaving`` have gone.

        Looks at the gaps that stay and at those the leaving sequences make, in time proportional
        to their number. Now and then it answers no where an exhaustive search finds a place.
        """
        if self._find_locked(span, _PROBES) >= 0 or self.last_end_locked() + span <= limit:
            return True
        links = self._links
        gone = set(leaving)
        for slot in leaving:
            left = links[slot * f.LINK_WORDS + f.LEFT]
            if left in gone:
                continue  # it was looked at with its neighbour
            right = slot
            while right in gone:
                right = links[right * f.LINK_WORDS + f.RIGHT]
            end = self._slots[right * f.SLOT_WORDS + f.START] if right else limit
            if end - self.end_locked(left) >= span:
                return True
        return False

    def widest_locked(self, leaving: Int64Array, occupied: Int64Array, limit: int) -> int:
        """Rows of the widest gap there would be once the slots ``leaving`` have gone.

        Only for the rare request that no present gap holds: it sorts all extents.

        Args:
            leaving: int64 [k] slots that would be ejected.
            occupied: int64 [n] every slot that holds rows.
            limit: rows that may be used at all.
        """
        words = np.frombuffer(self._slots, np.int64).reshape(-1, f.SLOT_WORDS)
        staying = words[np.setdiff1d(occupied, leaving)]
        starts = staying[:, f.START]
        order = np.argsort(starts)
        edges = np.append(starts[order], limit)
        ends = np.append(0, (starts + staying[:, f.SPAN])[order])
        return int((edges - ends).max())

    def rebuild_locked(self, occupied: Int64Array) -> None:
        """Recompute neighbours, gaps and bins from the slot table.

        Args:
            occupied: int64 [n] every slot that holds rows, in any order.
        """
        words = np.frombuffer(self._slots, np.int64).reshape(-1, f.SLOT_WORDS)
        links = np.frombuffer(self._links, np.int64).reshape(-1, f.LINK_WORDS)
        bins = np.frombuffer(self._bins, np.uint64)
        starts = words[occupied, f.START]
        nodes = np.append(0, occupied[np.argsort(starts)])
        ends = words[nodes, f.START] + words[nodes, f.SPAN]
        ends[0] = 0
        links[nodes, f.LEFT] = np.roll(nodes, 1)
        links[nodes, f.RIGHT] = np.roll(nodes, -1)
        gaps = np.append(words[nodes[1:], f.START] - ends[:-1], 0)
        links[nodes, f.GAP] = gaps
        bins[:] = 0
        self._rebuild_bins_locked(nodes, gaps)

    def _rebuild_bins_locked(self, nodes: Int64Array, gaps: Int64Array) -> None:
        links = np.frombuffer(self._links, np.int64).reshape(-1, f.LINK_WORDS)
        nodes, gaps = nodes[gaps > 0], gaps[gaps > 0]
        if not len(nodes):
            return
        numbers = _bins_of(gaps)
        # Stable, and nodes come by address: the lowest stands in front and is found first.
        order = np.argsort(numbers, kind="stable")
        nodes, numbers = nodes[order], numbers[order]
        same = numbers[1:] == numbers[:-1]
        links[nodes, f.BIN_PREVIOUS] = np.append(0, np.where(same, nodes[:-1] + 1, 0))
        links[nodes, f.BIN_NEXT] = np.append(np.where(same, nodes[1:] + 1, 0), 0)
        for place in np.flatnonzero(np.append(True, ~same)).tolist():
            number = int(numbers[place])
            self._bins[number] = int(nodes[place]) + 1
            self._bins[_BITMAP + (number >> 6)] |= 1 << (number & 63)

    def _bin_locked(self, node: int, gap: int) -> None:
        if not gap:
            return
        links, bins = self._links, self._bins
        number = bin_of(gap)
        head = bins[number]
        base = node * f.LINK_WORDS
        links[base + f.BIN_PREVIOUS] = 0
        links[base + f.BIN_NEXT] = head
        if head:
            links[(head - 1) * f.LINK_WORDS + f.BIN_PREVIOUS] = node + 1
        else:
            bins[_BITMAP + (number >> 6)] |= 1 << (number & 63)
        bins[number] = node + 1

    def _unbin_locked(self, node: int, gap: int) -> None:
        if not gap:
            return
        links, bins = self._links, self._bins
        base = node * f.LINK_WORDS
        previous, following = links[base + f.BIN_PREVIOUS], links[base + f.BIN_NEXT]
        if following:
            links[(following - 1) * f.LINK_WORDS + f.BIN_PREVIOUS] = previous
        if previous:
            links[(previous - 1) * f.LINK_WORDS + f.BIN_NEXT] = following
            return
        number = bin_of(gap)
        bins[number] = following
        if not following:
            bins[_BITMAP + (number >> 6)] &= ~(1 << (number & 63))
