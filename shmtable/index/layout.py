"""Which region of the arena lies where.

The layout follows from the columns, the strategies' arrays and the limits alone, so an attaching
process computes it again instead of believing offsets it finds in a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shmtable.index import fields as f
from shmtable.index.attachments import ENTRIES, ENTRY_WORDS

PAGE = 4096
# Bin heads (40 powers of two with 8 bins each) followed by the bitmap of non-empty bins.
BIN_WORDS = 512
# Slots beyond ``max_sequences``, so that a replacement can be written beside what it replaces.
SPARE_SLOTS = 64
MINIMUM_BUCKETS = 1024
# Arrays that others ask for have whole blocks of items: a sum of blocks needs no special last one.
BLOCK = 16


@dataclass(frozen=True)
class Region:
    """One array in the arena: ``capacity`` items of ``item_bytes`` at ``offset``.

    ``per`` says with what it grows: "row", "slot", "bucket", or "once" (reserved at creation);
    ``every`` how many of those share an item.
    """

    name: str
    per: str
    item_bytes: int
    capacity: int
    offset: int
    every: int = 1

    @property
    def bytes(self) -> int:
        """Address space taken."""
        return self.item_bytes * self.capacity


@dataclass(frozen=True)
class Extra:
    """An array that a column or a strategy asks for.

    ``per`` is "row" or "slot", of which ``every`` so many share an item, or "once": a single one.
    """

    name: str
    per: str
    item_bytes: int
    every: int = 1


_INDEX = (
    Extra("bins", "once", 8 * BIN_WORDS),
    Extra("attachments", "once", 8 * ENTRIES * ENTRY_WORDS),
    Extra("slots", "slot", 8 * f.SLOT_WORDS),
    Extra("notes", "slot", 8 * f.SLOT_WORDS),
    Extra("times_sampled", "slot", 8),
    Extra("links", "slot", 8 * f.LINK_WORDS),
    Extra("live", "slot", 8),
    Extra("free", "slot", 8),
    Extra("buckets", "bucket", 8),
    Extra("row_slot", "row", 4),
)


@dataclass(frozen=True)
class Layout:
    """Every region, and the capacities that they were laid out for.

    ``can_grow``: there is room for larger limits, where ``factor`` is above 1.
    """

    regions: dict[str, Region]
    capacity_rows: int
    capacity_slots: int
    total_bytes: int
    can_grow: bool

    @classmethod
    def plan(
        cls,
        *,
        first_byte: int,
        factor: int,
        maxlen: int,
        max_sequences: int,
        extra_rows: int,
        arrays: Sequence[Extra],
        rows: int | None = None,
    ) -> Layout:
        """Lay out a table that may grow to ``factor`` times its limits.

        Args:
            first_byte: where the header ends; a multiple of the page size.
            factor: room to grow, at least 1.
            maxlen: most transitions, at creation.
            max_sequences: most sequences, at creation.
            extra_rows: rows that a sequence may have beyond its transitions.
            arrays: what columns and strategies need beside the index.
            rows: so many and never more, for columns that take all their memory at creation.
        """
        can_grow = rows is None
        if rows is None:
            rows = row_limit(factor * maxlen, factor * max_sequences, extra_rows)
        slots = factor * max_sequences + SPARE_SLOTS + 1
        capacities = {"once": 1, "slot": slots, "bucket": bucket_count(slots), "row": rows}
        regions: dict[str, Region] = {}
        offset = first_byte
        for number, a in enumerate([*_INDEX, *arrays]):
            items = -(-capacities[a.per] // a.every)
            if number >= len(_INDEX) and a.per != "once":
                items = _round_up(items, BLOCK)
            regions[a.name] = Region(a.name, a.per, a.item_bytes, items, offset, a.every)
            # Pages are reserved region by region, so no two regions may share one.
            offset = _round_up(offset + regions[a.name].bytes, PAGE)
        return cls(regions, rows, slots, offset, can_grow)

    def spans(self, per: str, first: int, last: int) -> list[tuple[int, int]]:
        """(offset, bytes) of items ``first`` up to ``last`` of every region that grows ``per``."""
        return [(begin, end - begin) for _, begin, end in self._grown(per, first, last)]

    def blocks(self, per: str, first: int, last: int, size: int) -> list[tuple[int, int]]:
        """(offset, bytes) of the blocks of ``size`` bytes of the file that ``spans`` completes.

        They hold nothing but items before ``last`` of one region, and some from ``first`` on.
        """
        return [
            (start, stop - start)
            for region, begin, end in self._grown(per, first, last)
            if (start := max(begin // size, -(-region.offset // size)) * size)
            < (stop := end // size * size)
        ]

    def _grown(self, per: str, first: int, last: int) -> Iterator[tuple[Region, int, int]]:
        for region in self.regions.values():
            if region.per == per and region.item_bytes:
                begin, end = -(-first // region.every), -(-last // region.every)
                if begin < end:
                    size = region.item_bytes
                    yield region, region.offset + begin * size, region.offset + end * size

    def once(self) -> list[tuple[int, int]]:
        """(offset, bytes) of every region that is reserved at creation."""
        return [(r.offset, r.bytes) for r in self.regions.values() if r.per == "once"]

    def item_bytes(self, per: str) -> int:
        """Bytes that one more item costs, over all regions that grow ``per``."""
        return sum(-(-r.item_bytes // r.every) for r in self.regions.values() if r.per == per)


def row_limit(maxlen: int, max_sequences: int, extra_rows: int) -> int:
    """Rows that may be used at all; address space, not memory.

    Twice the need keeps fragmentation harmless under any ejector; the third share leaves room on
    one side or the other of a sequence that stays until its replacement is written.
    """
    return 3 * maxlen + extra_rows * (max_sequences + 2)


def fixed_rows(maxlen: int, max_sequences: int, extra_rows: int, replaces: bool) -> int:
    """Rows for a table whose memory is all taken at creation, and so counts from the start.

    A quarter more than ``maxlen`` is what the gaps between sequences usually take; where it is too
    little, a few are ejected earlier. A table that keeps a sequence until its replacement is
    written needs room on one side or the other of it, as in ``row_limit``.
    """
    rows = 3 * maxlen if replaces else maxlen + maxlen // 4
    return rows + extra_rows * (max_sequences + 2)


def bucket_count(slots: int) -> int:
    """Size of an identity map for that many slots: a power of two, at most half full."""
    return max(MINIMUM_BUCKETS, 1 << (2 * slots - 1).bit_length())


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
