"""Ten thousand damaged tables: each is refused with an error of ours, or used; nobody dies."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from shmtable.index import fields as f
from shmtable.index import rebuild
from shmtable.protocols import core
from tests.hostile.fuzzing import REGIONS, Damage, Victim, try_all

BATCH = 50
BATCHES = 50
#: What is damaged in each quarter of the ten thousand.
QUARTERS = {
    "header": ["header"],
    "description": ["description"],
    "slots": ["slots", "notes"],
    "all of it": ["header", "size", "description", *REGIONS],
}


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    """A table in memory: a disk would be waited for at every attachment."""
    parent = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Victim.make(folder)


VALUES = st.one_of(
    st.integers(-3, 80),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**63 - 1, -(2**63), 2**62, 2**32, 2**31 - 1, 4096, 1 << 40, 0x7FFFFFFF00]),
)


def damages(kinds: list[str]) -> st.SearchStrategy[list[Damage]]:
    """One to three changes to one file."""
    one = st.builds(Damage, st.sampled_from(kinds), st.integers(0, 1023), VALUES)
    return st.lists(one, min_size=1, max_size=3)


@pytest.mark.slow
@pytest.mark.parametrize("quarter", QUARTERS)
def test_damaged_tables_are_refused_or_used_and_kill_nobody(victim: Victim, quarter: str) -> None:
    seen: Counter[str] = Counter()

    @hypothesis.settings(
        max_examples=BATCHES,
        suppress_health_check=list(hypothesis.HealthCheck),
        database=None,
    )
    @hypothesis.given(st.lists(damages(QUARTERS[quarter]), min_size=BATCH, max_size=BATCH))
    def fuzz(batch: list[list[Damage]]) -> None:
        verdict = try_all(victim, batch)
        seen.update(verdict.outcomes)
        assert verdict.wrong == ""

    fuzz()
    print(f"{quarter}: {seen.total()} damaged tables, {dict(seen)}")
    assert seen.total() >= BATCH * BATCHES == 2500
    assert seen["used"] > 20
    # A slot that cannot be costs its sequence, and no more.
    assert seen["refused"] > 20 or quarter == "slots"


def test_a_table_that_is_not_damaged_is_used(victim: Victim) -> None:
    assert try_all(victim, [[], []]) == ({"used": 2, "refused": 0}, "")


# -- that the test would see it ------------------------------------------------------------------

SLOT = 1 * f.SLOT_WORDS
BROKEN = {
    "believes counters": (core, "refuse_impossible", Damage("header", f.NEXT_ATTACHMENT, -5)),
    "believes bounds": (core, "refuse_impossible", Damage("header", f.BUCKETS, 2**50)),
    "believes slots": (rebuild, "_impossible", Damage("slots", SLOT + f.START, 2**40)),
    "believes generations": (rebuild, "_impossible", Damage("slots", SLOT + 1, 2**63 - 1)),
}


@pytest.mark.parametrize("build", BROKEN)
def test_a_build_that_believes_a_file_is_found(
    build: str, victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, check, damage = BROKEN[build]
    assert try_all(victim, [[damage]]).wrong == ""
    monkeypatch.setattr(module, check, lambda *_: np.empty(0, np.int64))
    verdict = try_all(victim, [[], [damage], []])
    assert verdict.wrong.startswith(f"{[damage]}: raised\nTraceback ")
    assert verdict.outcomes["used"] == 1


def test_a_build_that_dies_is_found(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        faulthandler.disable()  # it would tell the whole world
        ctypes.string_at(1)

    monkeypatch.setattr(core, "refuse_impossible", die)
    verdict = try_all(victim, [[Damage("header", 500, 1)]])
    assert verdict.wrong.endswith(f"ended by signal {signal.SIGSEGV.value}")
