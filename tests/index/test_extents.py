"""Free rows: against a list of booleans, and against what a rebuild makes of the same slots."""

from __future__ import annotations

import numpy as np
import pytest

from shmtable.index import fields as f
from shmtable.index.extents import Extents, _bins_of, bin_of
from shmtable.index.layout import BIN_WORDS

LIMIT = 4000


class Rows:
    """The extents under test beside the naive model: one entry per row, the slot that has it."""

    def __init__(self, slots: int = 2000, limit: int = LIMIT) -> None:
        self.records = np.zeros((slots, f.SLOT_WORDS), np.int64)
        self.links = np.zeros((slots, f.LINK_WORDS), np.int64)
        self.bins = np.zeros(BIN_WORDS, np.uint64)
        self.extents = Extents(
            memoryview(self.records.reshape(-1)),
            memoryview(self.links.reshape(-1)),
            memoryview(self.bins),
        )
        self.limit = limit
        self.owner = np.zeros(limit, np.int64)

    def place(self, slot: int, span: int) -> int:
        """Place at once where the extents say; the first row, or -1 for nowhere."""
        node = self.extents.locate_locked(span, self.limit)
        if node < 0:
            return -1
        start = self.extents.end_locked(node)
        assert not self.owner[start : start + span].any(), "rows that somebody has were given out"
        assert start + span <= self.limit
        self.records[slot, [f.STATE, f.START, f.SPAN]] = f.LIVE, start, span
        self.extents.place_locked(node, slot, span)
        self.owner[start : start + span] = slot
        return start

    def release(self, slot: int) -> None:
        self.extents.release_locked(slot, int(self.records[slot, f.SPAN]))
        self.owner[self.owner == slot] = 0
        self.records[slot, f.STATE] = f.FREE

    def occupied(self) -> np.ndarray:
        return np.flatnonzero(self.records[:, f.STATE] == f.LIVE)

    def gaps(self) -> list[int]:
        """Runs of free rows below the last extent, by address, from the naive model."""
        used = np.flatnonzero(self.owner)
        if not len(used):
            return []
        edges = np.flatnonzero(np.diff(np.concatenate([[1], self.owner[: used[-1] + 1] != 0, [1]])))
        return [int(end - start) for start, end in edges.reshape(-1, 2)]

    def linked_gaps(self) -> list[int]:
        """The same from the links."""
        gaps, node = [int(self.links[0, f.GAP])], int(self.links[0, f.RIGHT])
        while node:
            gaps.append(int(self.links[node, f.GAP]))
            node = int(self.links[node, f.RIGHT])
        return [gap for gap in gaps if gap]

    def binned(self) -> dict[int, set[int]]:
        """Bin number to the nodes in its list; the bitmap must name exactly these bins."""
        lists: dict[int, set[int]] = {}
        for number in range(504):
            entry, previous = int(self.bins[number]), 0
            while entry:
                assert self.links[entry - 1, f.BIN_PREVIOUS] == previous
                lists.setdefault(number, set()).add(entry - 1)
                entry, previous = int(self.links[entry - 1, f.BIN_NEXT]), entry
        bits = np.unpackbits(self.bins[504:].view(np.uint8), bitorder="little")
        assert set(np.flatnonzero(bits).tolist()) == set(lists)
        return lists


def churn(rows: Rows, random: np.random.Generator, steps: int, longest: int) -> None:
    """Random placements and releases, up to what fits."""
    free = np.setdiff1d(np.arange(len(rows.records) - 1, 0, -1), rows.occupied()).tolist()
    for _ in range(steps):
        occupied = rows.occupied()
        if len(occupied) and (random.random() < 0.45 or not free):
            slot = int(random.choice(occupied))
            rows.release(slot)
            free.append(slot)
        elif rows.place(free[-1], int(random.integers(1, longest + 1))) >= 0:
            free.pop()


@pytest.mark.parametrize("longest", [1, 7, 8, 40, 900])
def test_random_churn_agrees_with_a_list_of_rows(longest: int) -> None:
    rows, random = Rows(), np.random.default_rng(longest)
    for _ in range(12):
        churn(rows, random, 50, longest)
        assert rows.linked_gaps() == rows.gaps()
        expected: dict[int, set[int]] = {}
        for node in [0, *rows.occupied().tolist()]:
            if rows.links[node, f.GAP]:
                expected.setdefault(bin_of(int(rows.links[node, f.GAP])), set()).add(node)
        assert rows.binned() == expected
        used = np.flatnonzero(rows.owner)
        assert rows.extents.last_end_locked() == (int(used[-1]) + 1 if len(used) else 0)


def test_nothing_that_fits_is_refused() -> None:
    rows, random = Rows(limit=600), np.random.default_rng(3)
    refused = 0
    for slot in range(1, 1500):
        span = int(random.integers(1, 60))
        widest = max([*rows.gaps(), rows.limit - rows.extents.last_end_locked()])
        start = rows.place(slot, span)
        assert (start >= 0) == (span <= widest)
        if start < 0:
            refused += 1
            rows.release(int(random.choice(rows.occupied())))
    assert refused > 100


def test_a_gap_far_down_its_own_bin_is_found_when_nothing_else_is_left() -> None:
    # Gaps of 64 to 71 share a bin, newest first: the only one that is wide enough is the oldest
    # of forty, beyond what the quick search looks at.
    rows = Rows(slots=200, limit=40 * 64 + 7 + 40)
    assert bin_of(64) == bin_of(71) != bin_of(72)
    for slot in range(1, 41):
        rows.place(slot, 71 if slot == 1 else 64)
        rows.place(100 + slot, 1)
    for slot in range(1, 41):
        rows.release(slot)
    assert rows.place(50, 71) == 0
    assert rows.place(51, 65) == -1
    assert rows.place(52, 64) >= 71


def test_gaps_come_before_the_open_end() -> None:
    rows = Rows()
    for slot in range(1, 6):
        rows.place(slot, 10)
    rows.release(2)
    rows.release(4)
    assert rows.place(6, 8) in (10, 30)
    assert rows.place(7, 8) in (10, 30)
    assert rows.place(8, 8) == 50


def test_neighbours_that_leave_become_one_gap() -> None:
    rows = Rows()
    for slot in range(1, 6):
        rows.place(slot, 10)
    for slot in (2, 4, 3):
        rows.release(slot)
    assert rows.linked_gaps() == [30]
    assert rows.place(9, 30) == 10


def test_rows_behind_the_last_extent_are_open_again_when_it_leaves() -> None:
    rows = Rows()
    for slot in range(1, 4):
        rows.place(slot, 10)
    rows.release(2)
    rows.release(3)
    assert rows.extents.last_end_locked() == 10
    assert rows.binned() == {}
    rows.release(1)
    assert rows.extents.last_end_locked() == 0
    assert rows.place(4, LIMIT) == 0


def test_the_gap_before_the_first_extent_is_used() -> None:
    rows = Rows()
    rows.place(1, 10)
    rows.place(2, 10)
    rows.release(1)
    assert rows.linked_gaps() == [10]
    assert rows.place(3, 4) == 0
    assert rows.place(4, 6) == 4


@pytest.mark.parametrize("seed", range(6))
def test_rebuild_makes_what_churn_has_made(seed: int) -> None:
    rows, random = Rows(), np.random.default_rng(seed)
    churn(rows, random, 300, 60)
    nodes = np.append(0, rows.occupied())
    fields = [f.LEFT, f.RIGHT, f.GAP]
    links, binned = rows.links[np.ix_(nodes, fields)].copy(), rows.binned()
    # Nothing of the derived state may be read: leave rubbish in all of it.
    rows.links[:] = random.integers(-9, 9, rows.links.shape)
    rows.bins[:] = random.integers(0, 2**63, rows.bins.shape)
    rows.extents.rebuild_locked(random.permutation(rows.occupied()))
    assert np.array_equal(rows.links[np.ix_(nodes, fields)], links)
    assert rows.binned() == binned
    churn(rows, random, 200, 60)
    assert rows.linked_gaps() == rows.gaps()


def test_rebuild_of_nothing_is_an_empty_list() -> None:
    rows = Rows()
    churn(rows, np.random.default_rng(1), 100, 20)
    rows.extents.rebuild_locked(np.empty(0, np.int64))
    rows.owner[:] = 0
    assert rows.extents.last_end_locked() == 0
    assert rows.binned() == {}
    assert rows.place(1, 5) == 0


@pytest.mark.parametrize("seed", range(3))
def test_widest_is_the_widest_gap_once_some_have_left(seed: int) -> None:
    rows, random = Rows(), np.random.default_rng(seed)
    churn(rows, random, 300, 60)
    occupied = rows.occupied()
    for count in (0, 1, len(occupied) // 2, len(occupied)):
        leaving = random.choice(occupied, count, replace=False)
        owner = np.where(np.isin(rows.owner, leaving), 0, rows.owner)
        edges = np.flatnonzero(np.diff(np.concatenate([[1], owner != 0, [1]])))
        widest = max((end - start for start, end in edges.reshape(-1, 2)), default=0)
        assert rows.extents.widest_locked(leaving, occupied, LIMIT) == widest


@pytest.mark.parametrize("seed", range(4))
def test_what_fits_once_some_have_left(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = Rows()
    churn(rows, random, 300, 40)
    answers = set()
    for _ in range(200):
        occupied = rows.occupied()
        by_address = occupied[np.argsort(rows.records[occupied, f.START])]
        # Neighbours, as first in, first out has it, and a few from anywhere.
        first = int(random.integers(len(occupied)))
        leaving = {*by_address[first : first + 5].tolist(), *random.choice(occupied, 3).tolist()}
        limit = rows.extents.last_end_locked() + int(random.integers(20))
        span = int(random.integers(1, 250))
        free = np.isin(rows.owner[:limit], [0, *leaving])
        edges = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]])))
        widest = int(np.max(edges[1::2] - edges[::2], initial=0))
        fits = rows.extents.fits_locked(span, list(leaving), limit)
        assert fits == (widest >= span)
        answers.add(fits)
    assert answers == {True, False}
    assert rows.extents.fits_locked(5, [], rows.extents.last_end_locked() + 5)


def test_every_gap_of_a_higher_bin_is_larger() -> None:
    sizes = np.arange(1, 5000)
    numbers = np.array([bin_of(int(size)) for size in sizes])
    assert (np.diff(numbers) >= 0).all()
    assert numbers[0] == 1
    _, firsts = np.unique(numbers, return_index=True)
    bounds = sizes[firsts]
    widths = np.diff(bounds)
    assert (widths <= np.maximum(bounds[:-1] // 8, 1)).all()


def test_bins_of_many_are_those_of_each() -> None:
    powers = [2**p + d for p in range(1, 50) for d in (-1, 0, 1)]
    sizes = np.array([1, *range(2, 600), *powers], np.int64)
    assert _bins_of(sizes).tolist() == [bin_of(int(size)) for size in sizes]
    assert bin_of(2**44) < 504
