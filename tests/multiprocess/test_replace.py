"""Several processes replace the same sequences while others read them."""

from __future__ import annotations

import numpy as np
import pytest

from shmtable import ArrayMemoryTable
from tests.multiprocess import content
from tests.multiprocess.recipe import Crew, link

IDENTITIES = list(range(-4, 4))
LENGTHS = (3, 8, 5, 13, 1, 9, 2)
REPLACEMENTS = 250
WIDTH = 64


def _replace(table: ArrayMemoryTable, version: int, writers: int) -> list[int]:
    """Replaces identities in a random order; which version of each came last from here."""
    random = np.random.default_rng(version)
    last = [-1] * len(IDENTITIES)
    for _ in range(REPLACEMENTS):
        at = int(random.integers(len(IDENTITIES)))
        length = LENGTHS[version % len(LENGTHS)]
        found = content.sequence(IDENTITIES[at], length, version=version, width=WIDTH)
        table.add_sequence(IDENTITIES[at], found)
        last[at] = version
        version += writers
    return last


def _watch(table: ArrayMemoryTable) -> int:
    """Looks on until told to stop; the number of looks."""
    looks = 0
    while not link().told():
        seen = table.identities().tolist()
        assert sorted(seen) == IDENTITIES, "an identity is missing, or there twice"
        identity = IDENTITIES[looks % len(IDENTITIES)]
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []
        assert content.wrong_with(table.sample(16, 1), 1) == []
        looks += 1
    return looks


@pytest.mark.parametrize("lock", ["robust", "portable"])
def test_a_replaced_identity_is_never_missing_and_never_doubled(make_table, lock: str) -> None:
    writers = 3
    table = make_table(
        columns=content.columns(WIDTH), maxlen=1000, on_duplicate="replace", lock=lock
    )
    for identity in IDENTITIES:
        table.add_sequence(identity, content.sequence(identity, 4, version=5000, width=WIDTH))
    with Crew("fork") as crew:
        adders = [crew.add(_replace, table, version, writers) for version in range(writers)]
        watchers = [crew.add(_watch, table) for _ in range(2)]
        crew.go()
        for adder in adders:
            adder.join()
        for watcher in watchers:
            watcher.tell("stop")
        looks = crew.results()[writers:]
    assert min(looks) > 0
    stats = table.stats()
    assert stats.sequences == len(IDENTITIES)
    assert stats.sequences_added == len(IDENTITIES) + writers * REPLACEMENTS
    assert stats.sequences_removed == writers * REPLACEMENTS
    assert stats.recoveries == 0 and stats.writing_transitions == 0
    for at, identity in enumerate(IDENTITIES):
        # What is left is the last word of one of the writers.
        version = int(table.sequence(identity)["who"][1])
        assert version in {adder.result[at] for adder in adders}
        assert content.wrong_with_sequence(table.sequence(identity), identity) == []
