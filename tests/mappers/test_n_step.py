"""Returns over n steps, beside a walk over lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shmtable.columns import DTYPES, Column, Schema, TagColumn, VirtualColumn
from shmtable.errors import SpecError
from shmtable.mappers import NStepDiscount, NStepElementMapper, NStepReturn
from tests.columns.placing import Placed
from tests.mappers import reference


def placed(
    rewards: list[list[float]],
    ends: list[list[bool]],
    n: int,
    gamma: float,
    terminated: str | None,
) -> Placed:
    schema = Schema.build(
        [
            Column("obs", (), int),
            Column("rewards", (1,), "float32"),
            Column("end", (1,), "uint8"),
            TagColumn("ended", (1,), "float32"),
            VirtualColumn("returns", (1,), "float64", "rewards", NStepReturn(n, gamma, terminated)),
            VirtualColumn("discounts", (), "float64", "end", NStepDiscount(n, gamma, terminated)),
            VirtualColumn("later", (), int, "obs", NStepElementMapper(n)),
        ],
        "rewards",
    )
    sequences = [
        {
            "obs": 100 * slot + np.arange(len(one) + 1),
            "rewards": np.array(one, np.float32)[:, None],
            "end": np.array(flags, np.uint8)[:, None] * 7,
            "ended": [0.5 if flags[-1] else 0.0],
        }
        for slot, (one, flags) in enumerate(zip(rewards, ends, strict=True), start=1)
    ]
    return Placed(schema, sequences, filler=255)


def computed(table: Placed, places: Any, steps: int = 1, clamp: bool = False) -> dict[str, Any]:
    windows = table.windows(places, steps, clamp)
    return {c.name: c.gather(windows).view(-1).tolist() for c in table.schema.virtual}


def test_by_hand_terminated() -> None:
    table = placed([[1.0, 2.0, 4.0, 8.0]], [[False, False, False, True]], 2, 0.5, "end")
    found = computed(table, [(0, 0)], 4)
    assert found["returns"] == [2.0, 4.0, 8.0, 8.0]
    assert found["discounts"] == [0.25, 0.25, 0.0, 0.0]
    assert found["later"][:2] == [102, 103]


def test_by_hand_truncated() -> None:
    table = placed([[1.0, 2.0, 4.0, 8.0]], [[False] * 4], 3, 0.5, "end")
    found = computed(table, [(0, 0)], 4)
    assert found["returns"] == [3.0, 6.0, 8.0, 8.0]
    assert found["discounts"] == [0.125, 0.125, 0.25, 0.5]
    assert found["later"] == [103, 104, 104, 104]


sequences = st.lists(
    st.lists(st.tuples(st.integers(-8, 8), st.booleans()), min_size=1, max_size=8),
    min_size=1,
    max_size=4,
)


@given(
    sequences=sequences,
    n=st.integers(1, 10),
    gamma=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
    told=st.sampled_from(["end", "ended", None]),
    steps=st.integers(1, 4),
    clamp=st.booleans(),
)
def test_against_lists(
    sequences: Any, n: int, gamma: float, told: str | None, steps: int, clamp: bool
) -> None:
    rewards = [[float(reward) for reward, _ in one] for one in sequences]
    ends = [[end for _, end in one] for one in sequences]
    table = placed(rewards, ends, n, gamma, told)
    if told == "ended":
        ends = [[False] * (len(one) - 1) + one[-1:] for one in ends]
    elif told is None:
        ends = [[False] * (len(one) - 1) + [True] for one in ends]
    places = table.places(steps, clamp)
    if not places:
        return
    found = computed(table, places, steps, clamp)
    expected = [
        (*reference.n_step(rewards[slot], ends[slot], at, n, gamma), 100 * (slot + 1))
        for slot, offset in places
        for at in reference.steps_of(offset, len(rewards[slot]), steps)
    ]
    # Powers and sums of these numbers are exact.
    assert found["returns"] == [float(total) for total, *_ in expected]
    assert found["discounts"] == [discount for _, discount, *_ in expected]
    for later, (_, discount, place, first) in zip(found["later"], expected, strict=True):
        assert later == first + place or discount == 0.0


def test_what_lies_behind_the_end_does_not_count() -> None:
    # Steps behind the end repeat the last reward before they are left out.
    table = placed([[1.0, float("inf")], [float("nan")]], [[False, True], [False]], 3, 0.9, "end")
    found = computed(table, [(0, 1), (1, 0)])
    assert found["returns"][0] == float("inf")
    assert np.isnan(found["returns"][1])
    table = placed([[1.0, 2.0, float("inf")]], [[True, False, False]], 3, 0.9, "end")
    assert computed(table, [(0, 0)])["returns"] == [1.0]


HAS_ZERO = [
    name
    for name, dtype in DTYPES.items()
    if not dtype.torch.is_complex and name != "float8_e8m0fnu"
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("reward", HAS_ZERO)
def test_dtypes(dtype: str, reward: str) -> None:
    column = VirtualColumn("returns", (), dtype, "rewards", NStepReturn(3, 0.5))
    schema = Schema.build([Column("rewards", (), reward), column], "rewards")
    rewards = torch.tensor([1.0, 1.0, 0.0]).to(DTYPES[reward].torch)
    found = column.gather(Placed(schema, [{"rewards": rewards}]).windows([(0, 0)], 3))
    assert found.dtype == column.dtype.torch
    assert found.tolist() == [1.5, 1.0, 0.0]


@pytest.mark.parametrize("dtype", HAS_ZERO)
@pytest.mark.parametrize("kind", [Column, TagColumn])
def test_an_end_may_be_marked_in_any_dtype(kind: type[Column], dtype: str) -> None:
    column = VirtualColumn("discounts", (), "float64", "x", NStepDiscount(1, 0.5, "end"))
    schema = Schema.build([Column("x", (), int), kind("end", (), dtype), column], "x")
    marks = torch.tensor([0.0, 1.0]).to(DTYPES[dtype].torch)
    tags = kind is TagColumn
    table = Placed(
        schema,
        [
            {"x": [0, 0], "end": marks[0] if tags else marks[[0, 0]]},
            {"x": [0, 0], "end": marks[1] if tags else marks},
        ],
    )
    found = column.gather(table.windows([(0, 0), (1, 0)], 2))
    assert found.tolist() == [0.5, 0.5, 0.5, 0.0]


def test_several_rewards_per_transition() -> None:
    column = VirtualColumn("returns", (2, 2), "float32", "rewards", NStepReturn(2, 0.5))
    schema = Schema.build([Column("rewards", (2, 2), "float32"), column], "rewards")
    rewards = np.arange(12.0).reshape(3, 2, 2)
    table = Placed(schema, [{"rewards": rewards}])
    found = column.gather(table.windows([(0, 0)], 3)).numpy()
    assert np.array_equal(found[:2], rewards[:2] + 0.5 * rewards[1:])
    assert np.array_equal(found[2], rewards[2])


def build(mapper: Any, shape: Any = (), dtype: Any = "float32") -> None:
    columns = [
        Column("rewards", (), "float32"),
        Column("wide", (2,), bool),
        Column("odd", (), "complex64"),
        TagColumn("ended", (), bool),
        VirtualColumn("v", shape, dtype, "rewards", mapper),
    ]
    Schema.build(columns, "rewards")


@pytest.mark.parametrize("kind", [NStepReturn, NStepDiscount])
def test_what_marks_an_end(kind: Any) -> None:
    build(kind(3, 0.9, "ended"))
    for name, why in [
        ("wide", "has shape (2,) and dtype bool"),
        ("odd", "has shape () and dtype complex64"),
        ("nothing", "is neither"),
        ("v", "is neither"),
    ]:
        with pytest.raises(SpecError) as raised:
            build(kind(3, 0.9, name))
        assert str(raised.value) == (
            f"column 'v': its mapper reads '{name}', which {why}; give the name of a "
            "stored column or a tag with a single real element"
        )


@pytest.mark.parametrize(
    ("mapper", "shape", "dtype", "message"),
    [
        (
            NStepReturn(3, 0.9),
            (1,),
            "float32",
            "column 'v': shape is (1,), its target 'rewards' has shape () and dtype float32; "
            "declare both of one shape, and the target of a real dtype",
        ),
        (
            NStepReturn(3, 0.9),
            (),
            int,
            "column 'v': dtype is int64, but discounted numbers are no whole ones; declare a "
            "floating point dtype",
        ),
        (
            NStepDiscount(3, 0.9),
            (2,),
            "float32",
            "column 'v': shape is (2,), but the discount is one value per transition; declare "
            "shape=()",
        ),
    ],
)
def test_columns_that_cannot_be(mapper: Any, shape: Any, dtype: Any, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        build(mapper, shape, dtype)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.9), "n is 0; give an integer of at least 1"),
        ((1, 1.5), "gamma is 1.5; give a number from 0 to 1"),
        ((1, float("nan")), "gamma is nan; give a number from 0 to 1"),
        ((1, True), "gamma is True; give a number from 0 to 1"),
        ((1, 1, 3), "terminated is 3; give the name of a stored column or a tag, or None"),
    ],
)
@pytest.mark.parametrize("kind", [NStepReturn, NStepDiscount])
def test_impossible_settings(kind: Any, arguments: Any, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        kind(*arguments)
    assert str(raised.value) == message


def test_returns_of_float32_are_rounded_once() -> None:
    rewards = np.random.default_rng(1).normal(size=50).astype(np.float32)
    column = VirtualColumn("returns", (), "float32", "rewards", NStepReturn(20, 0.99))
    schema = Schema.build([Column("rewards", (), "float32"), column], "rewards")
    found = column.gather(Placed(schema, [{"rewards": rewards}]).windows([(0, 0)], 50))
    exact = [
        float(reference.n_step(list(rewards), [False] * 50, at, 20, 0.99)[0]) for at in range(50)
    ]
    assert torch.allclose(found, torch.tensor(exact, dtype=torch.float32), rtol=2e-7, atol=1e-7)
