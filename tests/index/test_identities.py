"""The hash map of identities, against a dict; keys chosen to collide; rebuilds."""

from __future__ import annotations

import numpy as np
import pytest

from shmtable.index import fields as f
from shmtable.index.identities import _FACTOR, Identities
from shmtable.index.layout import bucket_count

EXTREMES = [0, 1, -1, 2**63 - 1, -(2**63), 2**62, -(2**62), 2**32, -(2**32)]
_INVERSE = pow(_FACTOR, -1, 1 << 64)


class Map:
    """The map under test, with slots that say whatever is needed, beside dicts."""

    def __init__(self, buckets: int = 64, slots: int = 400) -> None:
        self.words = np.zeros(512, np.int64)
        self.words[f.BUCKETS] = buckets
        self.records = np.zeros((slots, f.SLOT_WORDS), np.int64)
        self.buckets = np.zeros(1024, np.int64)
        self.map = Identities(
            memoryview(self.words),
            memoryview(self.records.reshape(-1)),
            memoryview(self.buckets),
        )
        self.live: dict[int, int] = {}
        self.writing: dict[int, int] = {}
        self.free = list(range(slots - 1, 0, -1))

    def insert(self, identity: int, state: int = f.LIVE) -> int:
        slot = self.free.pop()
        self.records[slot, [f.STATE, f.IDENTITY]] = state, identity
        self.map.insert_locked(identity, slot)
        (self.live if state == f.LIVE else self.writing)[identity] = slot
        return slot

    def remove(self, identity: int, state: int = f.LIVE) -> None:
        slot = (self.live if state == f.LIVE else self.writing).pop(identity)
        self.records[slot, f.STATE] = f.FREE  # as the index does: first the truth, then the map
        self.map.remove_locked(identity, slot)
        self.free.append(slot)

    def verify(self, *absent: int) -> None:
        for identity in {*self.live, *self.writing, *absent}:
            expected = self.live.get(identity, 0), self.writing.get(identity, 0)
            assert self.map.find_locked(identity) == expected, identity
        entered = np.sort(self.buckets[self.buckets != 0]).tolist()
        assert entered == sorted([*self.live.values(), *self.writing.values()])

    def occupied(self) -> np.ndarray:
        return np.flatnonzero(self.records[:, f.STATE] != f.FREE)


def colliding(home: int, count: int, buckets: int = 64) -> list[int]:
    """Identities whose place is ``home`` in a map of ``buckets``."""
    shift = 64 - (buckets.bit_length() - 1)
    keys = [((home << shift) + nth) * _INVERSE & (2**64 - 1) for nth in range(1, count + 1)]
    return [key - 2**64 if key >= 2**63 else key for key in keys]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bound", [40, 2**63 - 1])
def test_random_inserts_and_removals_agree_with_a_dict(seed: int, bound: int) -> None:
    table, random = Map(), np.random.default_rng(seed)
    fullest = 0
    for _ in range(400):
        identity = int(random.integers(-bound, bound))
        known = list(table.live)
        if known and (len(known) >= 32 or random.random() < 0.4):
            table.remove(int(random.choice(known)))
        elif identity not in table.live:
            table.insert(identity)
        table.verify(identity)
        fullest = max(fullest, len(table.live))
    assert fullest > 15


def test_negative_and_extreme_identities() -> None:
    table = Map()
    for identity in EXTREMES:
        table.verify(*EXTREMES)
        table.insert(identity)
    table.verify()
    for identity in EXTREMES[::2]:
        table.remove(identity)
        table.verify(*EXTREMES)


@pytest.mark.parametrize("home", [0, 17, 63])
def test_keys_that_all_collide(home: int) -> None:
    # At home 63 the run of collisions wraps around the end of the map.
    keys = colliding(home, 24)
    table = Map()
    assert {table.map._home(key, 63) for key in keys} == {home}
    for key in keys:
        table.insert(key)
    assert len(set(keys)) == 24
    table.verify()
    random = np.random.default_rng(home)
    for key in random.permutation(keys).tolist():
        table.remove(key)
        table.verify(*keys)


@pytest.mark.parametrize("seed", range(8))
def test_runs_of_neighbouring_homes_survive_every_removal(seed: int) -> None:
    # Closing a hole must not move an entry before its home: mix homes within and around a run.
    random = np.random.default_rng(seed)
    table = Map()
    keys = [key for home in (61, 62, 63, 0, 1, 3) for key in colliding(home, 5)]
    present: list[int] = []
    for key in random.permutation(keys).tolist():
        table.insert(key)
        present.append(key)
        if random.random() < 0.4:
            table.remove(present.pop(int(random.integers(len(present)))))
        table.verify(*keys)
    for key in random.permutation(present).tolist():
        table.remove(key)
        table.verify(*keys)
    assert not table.buckets.any()


def test_an_identity_may_be_live_and_being_written_at_once() -> None:
    table = Map()
    table.insert(5)
    table.insert(5, f.WRITING)
    table.insert(6, f.WRITING)
    table.verify(7)
    table.remove(5)
    table.verify(5)
    table.insert(5)
    table.remove(5, f.WRITING)
    table.verify()


@pytest.mark.parametrize("buckets", [64, 128, 1024])
def test_rebuild_finds_what_the_slots_hold(buckets: int) -> None:
    table, random = Map(), np.random.default_rng(buckets)
    for identity in [*EXTREMES, *colliding(63, 10), *range(100, 110)]:
        table.insert(identity)
    table.insert(100, f.WRITING)
    table.remove(105)
    table.buckets[:] = random.integers(0, 400, 1024)
    table.map.rebuild_locked(random.permutation(table.occupied()), buckets)
    table.buckets[buckets:] = 0  # beyond the map nothing counts
    assert table.words[f.BUCKETS] == buckets
    table.verify(105)
    for identity in list(table.live):
        table.remove(identity)
        table.verify(identity)


def test_rebuild_of_nothing_is_empty() -> None:
    table = Map()
    table.buckets[:] = 7
    table.map.rebuild_locked(np.empty(0, np.int64), 64)
    assert not table.buckets[:64].any()
    assert table.map.find_locked(0) == (0, 0)


@pytest.mark.parametrize("slots", [1, 2, 511, 512, 513, 100_000])
def test_a_map_for_so_many_slots_is_at_most_half_full(slots: int) -> None:
    buckets = bucket_count(slots)
    assert buckets >= 2 * slots
    assert buckets & (buckets - 1) == 0
