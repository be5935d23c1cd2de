"""Prioritised sampling: exact chances and weights, whatever has happened before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shmtable import ArrayMemoryTable, NoWindowError, PrioritizedSampleStrategy, SpecError
from tests.strategies.chance import LEAST_P, draw, p_value
from tests.strategies.derived import wrong_with_derived
from tests.strategies.prioritized import (
    EPSILON,
    MakeTable,
    Model,
    add,
    agreement,
    narrow,
    points_at,
)


def churned(table: ArrayMemoryTable, seed: int) -> Model:
    """Ejections, removals, given priorities and many updates, some of them stale."""
    random = np.random.default_rng(seed)
    model = Model()
    old: list[Any] = []
    for identity in range(90):
        length = int(random.integers(1, 18))
        given = [None, float(random.uniform(0, 2)), random.uniform(0, 2, length)][identity % 3]
        model.add(table, identity, length, given)
        if identity % 5 == 4:
            steps = 1 + identity % 3
            points = points_at(
                table,
                *(
                    (int(i), int(random.integers(0, len(model.sequences[i]))))
                    for i in random.choice(list(model.sequences), 8)
                ),
            )
            old.append((points, steps))
            points, steps = old[int(random.integers(len(old)))]
            new = random.uniform(0, 3, (8, steps))
            assert table.update_priorities(points, new) == model.update(points, new)
        if identity % 7 == 6:
            table.remove(int(random.choice(table.identities())))
            model.follow(table)
    assert table.stats().sequences_removed > 20
    assert wrong_with_derived(table) == []
    return model


@pytest.mark.parametrize("pad", [None, "zero"])
@pytest.mark.parametrize("steps", [1, 3, 12])
@pytest.mark.parametrize("seed", [0, 1])
def test_chances_are_those_of_the_priorities(
    make_table: MakeTable, seed: int, steps: int, pad: str | None
) -> None:
    table = narrow(make_table, pad=pad, alpha=0.7)
    weights = churned(table, seed).weights(steps, alpha=0.7, padded=pad is not None)
    assert agreement(draw(table, 60_000, steps), weights) > LEAST_P


def test_only_what_is_used_whole_is_stratified(make_table: MakeTable) -> None:
    """Of a draw that is cut short, strata would favour what they always meet."""
    table = narrow(make_table, alpha=1.0)
    model = Model()
    # In ten equal shares the first sequence would always be met twice, the others by chance.
    model.add(table, 0, 2, [16.0, 0.0])
    for identity in range(1, 9):
        model.add(table, identity, 2, [3.0, 5.0])
    core, random = table._core, np.random.default_rng(0)
    tree: Any = core.sampler._tree  # type: ignore[attr-defined]
    draw_leaves, stratified = tree.draw, []

    def noted(*args: Any, **options: bool) -> Any:
        stratified.append(options["stratified"])
        return draw_leaves(*args, **options)

    tree.draw = noted
    drawn: list[Any] = []
    for _ in range(3000):
        points = core.sampler.sample(2, 2, random)
        drawn += zip(points.identities.tolist(), points.offsets.tolist(), strict=True)
        assert stratified.pop(0) and not any(stratified)
        stratified.clear()
    assert p_value(drawn, model.weights(2, alpha=1.0)) > LEAST_P


@pytest.mark.parametrize("eta", [0.0, 0.9, 1.0])
def test_a_sequence_has_the_mix_of_the_highest_and_the_mean(
    make_table: MakeTable, eta: float
) -> None:
    table = narrow(make_table, per="sequence", eta=eta, alpha=0.8)
    random = np.random.default_rng(3)
    priority = {}
    for identity, length in enumerate([4, 7, 3, 12, 2]):
        given = random.uniform(0, 3, length)
        add(table, identity, length, given)
        priority[identity] = eta * given.max() + (1 - eta) * given.mean()
    new = random.uniform(0, 3, (2, 3))
    table.update_priorities(points_at(table, (1, 2), (3, 0)), new)
    priority[1] = eta * new[0].max() + (1 - eta) * new[0].mean()
    priority[3] = eta * new[1].max() + (1 - eta) * new[1].mean()
    offered = {0: 2, 1: 5, 2: 1, 3: 10}  # windows of three
    weights = {
        (identity, offset): (priority[identity] + EPSILON) ** 0.8 / count
        for identity, count in offered.items()
        for offset in range(count)
    }
    assert p_value(draw(table, 20_000, 3), weights) > LEAST_P
    assert wrong_with_derived(table) == []


def test_a_padded_window_updates_with_its_own_transitions_only(make_table: MakeTable) -> None:
    table = narrow(make_table, per="sequence", eta=0.5, pad="zero")
    add(table, 0, 2)
    points = points_at(table, (0, 0))
    assert table.update_priorities(points, [[1.0, 3.0, 99.0, 1e6]]) == 1
    assert table._core.sampler.arrays["priority"][points.slots[0]] == 0.5 * 3 + 0.5 * 2
    assert table.sampler.highest == 3.0


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("normalize", ["batch", "table"])
@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_importance_weights_are_those_of_the_formula(
    make_table: MakeTable, beta: float, normalize: str, steps: int
) -> None:
    table = narrow(make_table, normalize=normalize, beta=beta, alpha=0.7)
    model = churned(table, 4)
    sample = table.sample(50, steps)
    assert sample.points is not None and sample.weights is not None
    chances = np.array(
        [
            (model.sequences[i][offset] + EPSILON) ** 0.7
            for i, offset in zip(
                sample.points.identities.tolist(), sample.points.offsets.tolist(), strict=True
            )
        ]
    )
    least = chances.min() if normalize == "batch" else min(model.weights(1, alpha=0.7).values())
    np.testing.assert_allclose(sample.weights.numpy(), (least / chances) ** beta, rtol=1e-6)
    if beta:
        assert float(sample.weights.max()) <= 1
        assert len(set(sample.weights.tolist())) > 10


def test_weights_of_sequences_are_those_of_their_windows(make_table: MakeTable) -> None:
    table = narrow(make_table, per="sequence", beta=1.0, alpha=1.0)
    for identity, length in enumerate([3, 8, 20]):
        add(table, identity, length, identity + 1.0)
    sample = table.sample(200, 3)
    assert sample.points is not None and sample.weights is not None
    chance = np.array([1 / 1, 2 / 6, 3 / 18])[sample.points.identities]
    np.testing.assert_allclose(sample.weights.numpy(), (1 / 6) / chance, rtol=1e-4)


def test_weights_survive_an_emptied_table(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = narrow(make_table, normalize="table")
    add(table, 0, 10)
    weigh = type(table.sampler).weights

    def late(sampler: PrioritizedSampleStrategy, points: Any) -> Any:
        table.clear()  # by anybody, between the draw and the weights
        return weigh(sampler, points)

    monkeypatch.setattr(PrioritizedSampleStrategy, "weights", late)
    weights = table.sample(4, 2).weights
    assert weights is not None and weights.tolist() == [1.0] * 4


def test_new_data_has_the_highest_priority_or_the_one_given(make_table: MakeTable) -> None:
    table = narrow(make_table)
    kept = table._core.sampler.arrays["priority"]
    add(table, 0, 2)
    add(table, 1, 2, 7.0)
    add(table, 2, 2)
    add(table, 3, 2, [0.5, 9.0])
    add(table, 4, 2, 0)
    add(table, 5, 2)
    rows = [points_at(table, (i, 0)).starts[0] for i in range(6)]
    found = [kept[row : row + 2].tolist() for row in rows]
    assert found == [[1, 1], [7, 7], [7, 7], [0.5, 9], [0, 0], [9, 9]]
    table.update_priorities(points_at(table, (0, 0)), [11.0])
    table.clear()
    add(table, 6, 1)
    assert kept[points_at(table, (6, 0)).starts[0]] == 11  # the highest ever


@pytest.mark.parametrize("normalize", ["batch", "table"])
def test_alpha_and_beta_hold_for_everybody_at_once(
    make_table: MakeTable, unique_name: Any, normalize: str
) -> None:
    name = unique_name()
    table = narrow(make_table, alpha=0.6, beta=0.4, normalize=normalize, name=name)
    model = churned(table, 5)
    with ArrayMemoryTable.attach(name) as other:
        assert isinstance(other.sampler, PrioritizedSampleStrategy)
        other.sampler.alpha, other.sampler.beta = np.float32(1.5), 1
        assert (table.sampler.alpha, table.sampler.beta) == (1.5, 1.0)
        # Updated and added before anybody has sampled with it.
        points = points_at(table, (int(table.identities()[-1]), 0))
        model.update(points, np.array([2.5]))
        assert table.update_priorities(points, [2.5]) == 1
        model.add(table, 200, 4, [0.5, 1, 2, 3])
        for each in (table, other):
            weights = model.weights(1, alpha=1.5)
            assert agreement(draw(each, 40_000, 1), weights) > LEAST_P
            assert wrong_with_derived(each) == []
            model.update(points, np.array([0.7]))
            other.update_priorities(points, [0.7])


@pytest.mark.parametrize("normalize", ["batch", "table"])
def test_leaves_half_made_are_made_again(make_table: MakeTable, normalize: str) -> None:
    table = narrow(make_table, alpha=0.6, normalize=normalize)
    model = churned(table, 6)
    sampler: Any = table.sampler
    sampler.alpha = 1.0

    class CutOffError(Exception):
        pass

    def cut_off(*_: Any) -> None:
        sampler._tree.leaves[:50] = 77.0
        raise CutOffError

    whole, sampler._tree.rebuild = sampler._tree.rebuild, cut_off
    with pytest.raises(CutOffError):
        table.sample(1, 1)
    sampler._tree.rebuild = whole
    assert np.isnan(sampler.arrays["leaf_alpha"][0])
    # Whatever comes first: an update, an add that ejects, a removal.
    points = points_at(table, (int(table.identities()[-1]), 0))
    assert table.update_priorities(points, [0.3]) == model.update(points, np.array([0.3]))
    model.add(table, 300, 15, 1.5)
    table.remove(int(table.identities()[1]))
    model.follow(table)
    weights = model.weights(2, alpha=1.0)
    assert agreement(draw(table, 40_000, 2), weights) > LEAST_P
    assert wrong_with_derived(table) == []


@pytest.mark.parametrize("normalize", ["batch", "table"])
def test_nothing_has_a_chance_without_epsilon(make_table: MakeTable, normalize: str) -> None:
    table = narrow(make_table, epsilon=0, alpha=1, normalize=normalize)
    add(table, 0, 5, 0.0)
    with pytest.raises(NoWindowError, match="all their weights are 0"):
        table.sample(1, 2)
    add(table, 1, 5, [0, 0, 1, 2, 0])
    assert p_value(draw(table, 3000, 2), {(1, 2): 1.0, (1, 3): 2.0}) > LEAST_P


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("alpha", -0.1),
        ("alpha", 5),
        ("beta", 1.01),
        ("beta", float("nan")),
        ("beta", "1"),
        ("beta", 10**400),
    ],
)
def test_settings_that_cannot_be_are_refused(
    make_table: MakeTable, setting: str, value: Any
) -> None:
    table = narrow(make_table)
    before = table.sampler.alpha, table.sampler.beta
    with pytest.raises(SpecError, match=f"{setting} is .*give a number from 0 to"):
        setattr(table.sampler, setting, value)
    with pytest.raises(SpecError, match=f"{setting} is"):
        PrioritizedSampleStrategy(**{setting: value})
    assert (table.sampler.alpha, table.sampler.beta) == before


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"per": "window"}, "per is 'window'; give one of"),
        ({"eta": 2}, "eta is 2"),
        ({"epsilon": -1e-9}, "epsilon is -1e-09"),
        ({"normalize": "all"}, "normalize is 'all'"),
        ({"per": "sequence", "normalize": "table"}, 'needs per="transition"'),
    ],
)
def test_settings_that_cannot_be_made(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        PrioritizedSampleStrategy(**settings)
