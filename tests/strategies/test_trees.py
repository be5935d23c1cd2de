"""The trees against plain lists; the chances of draws; no drift."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmtable.strategies import MinTree, SumTree, tree_states
from shmtable.strategies import trees as trees_module
from tests.strategies.chance import LEAST_P, p_value

Array = npt.NDArray[Any]


def arrays_for(size: int) -> dict[str, Array]:
    """Fresh memory for a tree of so many leaves, in whole blocks as a table gives it."""
    return {
        state.name: np.zeros(math.ceil(size / state.every / 16) * 16)
        for state in tree_states("t", "row")
    }


def sum_tree(values: Any, size: int | None = None) -> SumTree:
    values = np.asarray(values, np.float64)
    tree = SumTree(arrays_for(size or len(values)), "t")
    tree.fill(0, len(values), values)
    return tree


def levels(arrays: dict[str, Array]) -> list[Array]:
    return [arrays[state.name] for state in tree_states("t", "row")]


@st.composite
def histories(draw: Any) -> tuple[int, list[tuple[Any, ...]]]:
    """A size, and what is done to a tree of so many leaves."""
    size = draw(st.one_of(st.integers(1, 50), st.integers(200, 300), st.integers(4000, 5000)))
    value = st.one_of(st.just(0.0), st.floats(1e-6, 1e6), st.sampled_from([1e-300, 1e200]))
    place = st.integers(0, size - 1)
    put = st.tuples(st.just("put"), st.lists(st.tuples(place, value), min_size=1, max_size=40))
    fill = st.tuples(st.just("fill"), place, place, value)
    reset = st.tuples(st.just("reset"), st.lists(place, max_size=20, unique=True), value)
    return size, draw(st.lists(st.one_of(put, put, fill, reset), max_size=12))


@settings(max_examples=60)
@given(histories())
def test_any_history_leaves_what_a_list_would_hold(
    history: tuple[int, list[tuple[Any, ...]]],
) -> None:
    size, steps = history
    model = [0.0] * size
    sums, least = arrays_for(size), arrays_for(size)
    trees = SumTree(sums, "t"), MinTree(least, "t")
    for kind, *what in steps:
        if kind == "put":
            places = np.array([place for place, _ in what[0]])
            for tree in trees:
                tree.put(places, np.array([value for _, value in what[0]]))
            for place, value in what[0]:
                model[place] = value
        elif kind == "fill":
            first, last = min(what[:2]), max(what[:2]) + 1
            for tree in trees:
                tree.fill(first, last, what[2])
            model[first:last] = [what[2]] * (last - first)
        else:
            for tree in trees:
                tree.reset(size, np.array(what[0], np.int64), what[1])
            model = [what[1] if place in set(what[0]) else 0.0 for place in range(size)]
    assert sums["t"][:size].tolist() == least["t"][:size].tolist() == model
    assert trees[0].total(size) == pytest.approx(math.fsum(model), rel=1e-12)
    above = [value for value in model if value > 0]
    assert trees[1].least(size) == min(above, default=0)
    order = list(trees[1].ascending(size))
    assert [model[place] for place in order] == sorted(above)
    assert len(set(order)) == len(order)
    kept = [level.copy() for level in (*levels(sums), *levels(least))]
    for tree in trees:
        tree.rebuild(size)
    for now, before in zip((*levels(sums), *levels(least)), kept, strict=True):
        np.testing.assert_allclose(now, before, rtol=1e-12)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("size", [7, 300, 20_000])
def test_draws_have_the_chances_of_their_values(size: int, stratified: bool) -> None:
    random = np.random.default_rng(size)
    values = np.zeros(size)
    at = random.choice(size, 7, replace=False)
    values[at] = [1, 2, 3, 0.5, 10, 0.25, 4]
    tree = sum_tree(values, 2 * size)
    drawn, found, total = tree.draw(40_000, size, random, stratified=stratified)
    assert total == values.sum()
    assert np.array_equal(found, values[drawn])
    weights = {int(place): float(values[place]) for place in at}
    p = p_value(drawn.tolist(), weights)
    # Strata make the counts far more even than chance would.
    assert p > (0.999 if stratified else LEAST_P)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_small_stratified_draws_too(count: int) -> None:
    random = np.random.default_rng(count)
    tree = sum_tree([1, 0, 2, 5, 0, 0.5, 1.5])
    firsts: list[int] = []
    everything: list[int] = []
    for _ in range(4000):
        drawn, _, _ = tree.draw(count, 7, random, stratified=True)
        firsts.append(int(drawn[0]))
        everything += drawn.tolist()
    weights = {0: 1.0, 2: 2.0, 3: 5.0, 5: 0.5, 6: 1.5}
    assert p_value(firsts, weights) > LEAST_P  # whichever place in a batch one looks at
    assert p_value(everything, weights) > LEAST_P


def test_huge_ranges_of_values() -> None:
    random = np.random.default_rng(0)
    values = 10.0 ** random.uniform(-100, 3, 5000)
    values[::3] = 0
    values[[17, 1700, 4999]] = [3e3, 1e3, 2e3]
    values[4000] = 1e-300
    tree = sum_tree(values)
    drawn, found, total = tree.draw(200_000, 5000, random)
    assert total == pytest.approx(math.fsum(values), rel=1e-12)
    assert (found > 0).all() and np.array_equal(values[drawn], found)
    often = {int(p): float(values[p]) for p in np.flatnonzero(values > total / 5000)}
    kept = [place for place in drawn.tolist() if place in often]
    assert p_value(kept, often) > LEAST_P
    share = sum(often.values()) / total
    assert len(kept) / len(drawn) == pytest.approx(share, abs=0.005)


def test_an_empty_tree_draws_only_zeros() -> None:
    for size in (5, 2000):
        _, values, total = sum_tree(np.zeros(size)).draw(10, size, np.random.default_rng(0))
        assert total == 0 and not values.any()


@pytest.mark.parametrize("huge", [1e64, 1e250])
def test_a_giant_hides_its_neighbours_and_no_longer(huge: float) -> None:
    random = np.random.default_rng(1)
    tree = sum_tree(np.full(3000, 2.0))
    for giant in (0, 1234, 2999):
        tree.put(np.array([giant]), huge)
        drawn, _, _ = tree.draw(100, 3000, random)
        assert set(drawn.tolist()) == {giant}
        tree.put(np.array([giant]), 2.0)
        assert tree.total(3000) == 6000  # a difference would have left a rest
    assert p_value((tree.draw(20 * 3000, 3000, random)[0] // 100).tolist(), range(30)) > LEAST_P


def test_no_drift_over_ten_million_updates() -> None:
    size, batch = 1 << 17, 4096
    random = np.random.default_rng(0)
    sums, least = arrays_for(size), arrays_for(size)
    tree, low = SumTree(sums, "t"), MinTree(least, "t")
    values = np.concatenate([10.0 ** random.uniform(-12, 12, 8 * batch), np.zeros(batch)])
    for _ in range(10_000_000 // batch + 1):
        places = random.integers(0, size, batch)
        first = int(random.integers(0, 8 * batch))
        tree.put(places, values[first : first + batch])
    low.reset(size, np.arange(size), tree.leaves[:size])
    assert tree.total(size) == pytest.approx(math.fsum(tree.leaves), rel=1e-14)
    assert low.least(size) == tree.leaves[tree.leaves > 0].min()
    before = [level.copy() for level in levels(sums)]
    tree.rebuild(size)
    for now, then in zip(levels(sums), before, strict=True):
        # An ulp, where the library adds up few blocks in another order than many.
        np.testing.assert_allclose(now, then, rtol=1e-15)


@pytest.mark.parametrize("count", [1, 1024, 1025, 5000])
def test_sums_within_blocks_however_many_there_are(count: int) -> None:
    blocks = np.random.default_rng(0).random((count, trees_module.FANOUT))
    assert np.allclose(trees_module._prefixes(blocks), blocks.cumsum(1), rtol=1e-13)
