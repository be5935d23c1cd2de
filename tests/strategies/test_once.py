"""Without replacement: every window once in a pass, whoever draws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    NoWindowError,
    UniformEjectionStrategy,
    WithoutReplacementSampleStrategy,
)
from tests.multiprocess.recipe import Crew, link
from tests.strategies.chance import LEAST_P, draw, p_value, windows
from tests.strategies.derived import wrong_with_derived
from tests.strategies.prioritized import MakeTable, Window, add, narrow


def table_with(make_table: MakeTable, lengths: list[int], **options: object) -> ArrayMemoryTable:
    table = narrow(make_table, sampler=WithoutReplacementSampleStrategy(), **options)
    for identity, length in enumerate(lengths):
        add(table, identity, length)
    return table


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("count", [1, 5, 12])
@pytest.mark.parametrize("pad", [None, "zero"])
def test_every_window_once_in_a_pass(
    make_table: MakeTable, steps: int, count: int, pad: str | None
) -> None:
    table = table_with(make_table, [9, 2, 14, 3, 8, 4, 1, 3, 7, 9], pad=pad)
    offered = windows(table, steps, padded=pad is not None)
    for _ in range(3):
        drawn = [w for _ in range(len(offered) // count) for w in draw(table, count, steps)]
        assert len(set(drawn)) == len(drawn) and set(drawn) <= set(offered)
        if len(offered) % count:
            table.sampler.arrays["pass"][0] += 1  # as the next sample would do
        else:
            assert sorted(drawn) == sorted(offered)


def test_the_rest_of_a_pass_that_is_too_small_is_skipped(make_table: MakeTable) -> None:
    table = table_with(make_table, [5, 5])
    first = draw(table, 7, 1)
    second = draw(table, 7, 1)  # three are left
    assert len(set(first)) == len(set(second)) == 7
    third = draw(table, 3, 1)
    assert sorted(second + third) == windows(table, 1)


@pytest.mark.parametrize("count", [10, 13, 25])
def test_more_than_the_table_offers(make_table: MakeTable, count: int) -> None:
    table = table_with(make_table, [5, 5])
    for _ in range(3):
        times = Counter(draw(table, count, 1))
        assert set(times) == set(windows(table, 1))
        assert set(times.values()) <= {count // 10, -(-count // 10)}


def test_all_of_a_large_table_at_once_after_some(make_table: MakeTable) -> None:
    table = table_with(make_table, [100] * 20, maxlen=2000)
    draw(table, 1999, 1)
    drawn = draw(table, 2000, 1)
    assert len(set(drawn)) == 2000


def test_new_sequences_join_the_pass_and_ejected_leave_it(make_table: MakeTable) -> None:
    table = table_with(make_table, [5] * 4, maxlen=20)
    drawn = draw(table, 8, 1)
    table.remove(3)
    add(table, 9, 3)
    left = [window for window in windows(table, 1) if window not in drawn]
    assert sorted(draw(table, len(left), 1)) == sorted(left)
    assert wrong_with_derived(table) == []
    table.clear()
    add(table, 0, 6)  # known by the same names, and new
    assert sorted(draw(table, 6, 1)) == windows(table, 1)


def test_a_request_that_cannot_be_met_ends_no_pass(make_table: MakeTable) -> None:
    table = table_with(make_table, [5, 5])
    drawn = draw(table, 6, 1)
    with pytest.raises(NoWindowError):
        table.sample(1, 6)
    assert sorted(drawn + draw(table, 4, 1)) == windows(table, 1)


def test_windows_of_other_lengths_are_told_by_where_they_start(make_table: MakeTable) -> None:
    table = table_with(make_table, [6, 6])
    long = draw(table, 4, 4)
    short = draw(table, 8, 1)
    assert sorted(long + short) == windows(table, 1)


def test_what_comes_first_is_equally_likely(make_table: MakeTable) -> None:
    table = table_with(make_table, [3, 9, 4, 7, 2])
    core, random = table._core, np.random.default_rng(0)
    found: list[Window] = []
    for _ in range(3000):
        points = core.guard.run(core.sampler.sample, 4, 2, random)
        found += zip(points.identities.tolist(), points.offsets.tolist(), strict=True)
        core.sampler.arrays["pass"][0] += 1
    assert p_value(found, windows(table, 2)) > LEAST_P


def test_a_draw_that_was_cut_off_is_made_good(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_with(make_table, [9, 5])
    tree = table.sampler._tree  # type: ignore[attr-defined]

    class CutOffError(Exception):
        pass

    def cut_off(places: object, values: object) -> None:
        tree.leaves[places] = values  # and nothing above them
        raise CutOffError

    with monkeypatch.context() as patch:
        patch.setattr(tree, "put", cut_off)
        with pytest.raises(CutOffError):
            table.sample(4, 1)
    drawn = draw(table, 10, 1)  # the four count as handed out
    assert len(set(drawn)) == 10
    assert wrong_with_derived(table) == []


def take(table: ArrayMemoryTable, samples: int) -> list[Window]:
    return [window for _ in range(samples) for window in draw(table, 3, 1)]


def test_processes_share_the_pass(make_table: MakeTable) -> None:
    table = table_with(make_table, [30] * 9)
    with Crew("fork") as crew:
        for _ in range(3):
            crew.add(take, table, 30)
        crew.go()
        drawn = [window for part in crew.results() for window in part]
    assert sorted(drawn) == windows(table, 1)  # 270


def take_rows(table: ArrayMemoryTable) -> list[tuple[int, int]]:
    """(identity, offset) until told to stop, with the pass never ending."""
    found: list[Window] = []
    while not link().told():
        found += draw(table, 2, 1)
    return found


def test_no_window_twice_while_others_eject(make_table: MakeTable) -> None:
    table = table_with(make_table, [20] * 15, ejector=UniformEjectionStrategy())
    with Crew("fork") as crew:
        for _ in range(2):
            crew.add(take_rows, table)
        crew.go()
        identity = 100
        while identity < 700:  # new ones come faster than they are drawn
            add(table, identity, 20)
            identity += 1
        passes = int(table.sampler.arrays["pass"][0])
        for member in crew.members:
            member.tell("stop")
        drawn = [window for part in crew.results() for window in part]
    most = int(table.sampler.arrays["pass"][0])
    assert max(Counter(drawn).values()) <= most, (passes, most)
    assert drawn and table.check() == []
    assert wrong_with_derived(table) == []
