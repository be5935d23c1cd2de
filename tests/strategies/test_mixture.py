"""Several samplers in one: shares, weights, what is passed on to the members."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shmtable import (
    ArrayMemoryTable,
    CoverageSampleStrategy,
    FifoEjectionStrategy,
    LifoSampleStrategy,
    MixtureSampleStrategy,
    PrioritizedSampleStrategy,
    SampleStrategy,
    SpecError,
    StateSpec,
    UniformSampleStrategy,
    WithoutReplacementSampleStrategy,
)
from shmtable.types import SamplePoints
from tests.strategies.chance import LEAST_P, draw, p_value, windows
from tests.strategies.derived import wrong_with_derived
from tests.strategies.prioritized import EPSILON, MakeTable, add, narrow, points_at


class First(SampleStrategy):
    """The first window of the oldest sequence, if it is that long; counts what is handed out."""

    def __init__(self, least: int = 1) -> None:
        self.least = least
        self.calls: list[str] = []

    def config(self) -> dict[str, Any]:
        return {"least": self.least}

    def states(self) -> tuple[StateSpec, ...]:
        return (StateSpec("seen", "table", "int64"),)

    def sample(self, count: int, sequence_length: int, random: np.random.Generator) -> SamplePoints:
        slot = self.view.oldest()
        enough = self.view.length(slot) >= max(self.least, sequence_length)
        slots = np.full(count if enough else 0, slot)
        return self.view.points(slots, np.zeros_like(slots))

    def on_sample(self, points: SamplePoints, sequence_length: int) -> None:
        self.arrays["seen"][0] += len(points)

    def begin_simple_import(self) -> None:
        self.calls.append("begin")

    def end_simple_import(self) -> None:
        self.calls.append("end")

    def post_import(self) -> None:
        self.calls.append("post")


def mixed(make_table: MakeTable, *members: Any, **options: Any) -> ArrayMemoryTable:
    return narrow(make_table, sampler=MixtureSampleStrategy(members), **options)


@pytest.mark.parametrize("count", [1, 3, 10, 32])
def test_shares_are_right_on_average(make_table: MakeTable, count: int) -> None:
    table = mixed(make_table, (5, LifoSampleStrategy()), (3, First()), (1.5, First()))
    for identity in range(3):
        add(table, identity, 4)
    core, random = table._core, np.random.default_rng(0)
    shares = np.array([5, 3, 1.5]) / 9.5
    found = np.zeros(3)
    rounds = 3000
    spies: list[Callable[..., SamplePoints]] = []
    for number, member in enumerate(core.sampler.parts()):
        assert isinstance(member, SampleStrategy)
        spies.append(member.sample)

        def counted(wanted: int, *rest: Any, number: int = number) -> SamplePoints:
            found[number] += wanted
            low, high = np.floor(shares[number] * count), np.ceil(shares[number] * count)
            assert low <= wanted <= max(high, low + 2)
            return spies[number](wanted, *rest)

        member.sample = counted  # type: ignore[method-assign]
    for _ in range(rounds):
        assert len(core.sampler.sample(count, 1, random)) == count
    # Only the rest of less than one window each is left to chance.
    assert np.abs(found / rounds - shares * count).max() < 5 * 0.7 / np.sqrt(rounds)


def test_what_one_cannot_draw_the_others_do(make_table: MakeTable) -> None:
    table = mixed(make_table, (0.5, First(least=6)), (0.5, UniformSampleStrategy()))
    add(table, 0, 5)
    drawn = draw(table, 200, 2)
    assert p_value(drawn, windows(table, 2)) > LEAST_P  # the uniform one's alone
    add(table, 1, 3)
    table.remove(0)
    add(table, 2, 7)
    assert len(draw(table, 10, 4)) == 10
    table.remove(1)  # now the oldest has seven
    assert draw(table, 10, 7) == [(2, 0)] * 10


def test_weights_are_those_of_the_prioritized_member(make_table: MakeTable) -> None:
    table = mixed(
        make_table,
        (0.4, CoverageSampleStrategy()),
        (0.2, LifoSampleStrategy()),
        (0.4, PrioritizedSampleStrategy(alpha=1, beta=1)),
    )
    priority = np.array([1.0, 3, 0.25, 2])
    for identity in range(4):
        add(table, identity, 5, priority[identity])
    sample = table.sample(100, 2)
    assert sample.points is not None and sample.weights is not None
    weights = sample.weights.numpy()
    assert weights[:60].tolist() == [1.0] * 60
    drawn = priority[sample.points.identities[60:]] + EPSILON
    np.testing.assert_allclose(weights[60:], drawn.min() / drawn, rtol=1e-5)


@pytest.mark.parametrize(
    ("setting", "text"),
    [({"beta": 0.9}, "beta is 0.4 and 0.9"), ({"normalize": "table"}, "normalize is 'batch' and ")],
)
def test_members_that_correct_differently_are_refused(setting: dict[str, Any], text: str) -> None:
    members = [(0.5, PrioritizedSampleStrategy()), (0.5, PrioritizedSampleStrategy(**setting))]
    with pytest.raises(SpecError, match=text):
        MixtureSampleStrategy(members)
    MixtureSampleStrategy([*members[:1], (1, PrioritizedSampleStrategy(alpha=1))])


def test_beta_is_set_for_all_members(make_table: MakeTable) -> None:
    table = mixed(
        make_table,
        (0.5, PrioritizedSampleStrategy()),
        (0.5, PrioritizedSampleStrategy(alpha=1)),
        (0.5, LifoSampleStrategy()),
    )
    assert table.sampler.beta == 0.4
    table.sampler.beta = 0.7
    assert [member.beta for member in table.sampler.members[:2]] == [0.7, 0.7]
    assert table.sampler.beta == 0.7


def test_there_is_no_beta_to_set_without_weights(make_table: MakeTable) -> None:
    table = mixed(make_table, (1, LifoSampleStrategy()))
    assert table.sampler.beta == 0.0
    with pytest.raises(SpecError, match="no member makes weights"):
        table.sampler.beta = 0.5


def test_without_a_weighted_member_there_are_none(make_table: MakeTable) -> None:
    table = mixed(make_table, (1, CoverageSampleStrategy()), (1, LifoSampleStrategy()))
    add(table, 0, 5)
    assert table.sample(10, 2).weights is None


def test_updates_reach_every_member_that_wants_them(make_table: MakeTable) -> None:
    table = mixed(
        make_table,
        (1, PrioritizedSampleStrategy()),
        (1, UniformSampleStrategy()),
        (1, PrioritizedSampleStrategy(per="sequence", eta=1)),
    )
    add(table, 0, 3, [1, 2, 3])
    points = points_at(table, (0, 1))
    assert table.update_priorities(points, [[5, 7]]) == 1
    row, slot = int(points.starts[0]) - 1, int(points.slots[0])
    assert table.sampler.arrays["0.priority"][row : row + 3].tolist() == [1, 5, 7]
    assert table.sampler.arrays["2.priority"][slot] == 7
    assert wrong_with_derived(table) == []
    beta = table.sampler.parts()[0]
    assert isinstance(beta, PrioritizedSampleStrategy)
    beta.beta = 0.9
    with pickle.loads(pickle.dumps(table)) as other:
        assert other.sampler.parts()[0].beta == 0.9


def test_once_in_a_pass_for_the_member_that_says_so(make_table: MakeTable) -> None:
    table = mixed(make_table, (0.5, WithoutReplacementSampleStrategy()), (0.5, First()))
    add(table, 0, 20)
    drawn = [window for _ in range(5) for window in draw(table, 8, 1)[:4]]
    assert sorted(drawn) == windows(table, 1)


def test_members_of_ones_own_through_pickling_and_attaching(
    make_table: MakeTable, unique_name: Callable[[], str]
) -> None:
    name = unique_name()
    table = mixed(make_table, (3, First(2)), (1, UniformSampleStrategy()), name=name)
    add(table, 0, 5)
    with (
        pickle.loads(pickle.dumps(table)) as other,
        ArrayMemoryTable.attach(name, classes=[First]) as third,
    ):
        for each in (table, other, third):
            member = each.sampler.parts()[0]
            assert isinstance(member, First) and member.least == 2
            each.sample(8, 1)
        assert table.sampler.arrays["0.seen"][0] == 24
    with pytest.raises(SpecError, match="'First' is not a SampleStrategy this program knows"):
        ArrayMemoryTable.attach(name)


def test_members_are_told_of_a_restore(make_table: MakeTable, tmp_path: Any) -> None:
    table = mixed(make_table, (1, First()), (1, CoverageSampleStrategy()))
    add(table, 0, 5)
    table.store(tmp_path / "t")
    table.restore(tmp_path / "t")
    member = table.sampler.parts()[0]
    assert isinstance(member, First) and member.calls == ["begin", "end", "post"]
    assert wrong_with_derived(table) == []


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([], "members is empty"),
        ([(0, First())], "no fraction above 0"),
        ([(float("inf"), First())], "no fraction above 0"),
        ([("1", First())], "no fraction above 0"),
        ([(10**400, First())], r"no fraction above 0, up to 1e\+09"),
        ([(1, FifoEjectionStrategy())], "no sampler"),
        ([First()], "no fraction above 0"),
        ([(1, MixtureSampleStrategy([(1, First())]))], "is made of samplers itself"),
    ],
)
def test_members_that_cannot_be(members: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        MixtureSampleStrategy(members)
