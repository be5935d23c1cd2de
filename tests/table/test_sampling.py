"""Sampling: shapes, layouts, padding, tags, adaptors, points, and repeatable randomness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    Column,
    DictObsAdaptor,
    FifoSampleStrategy,
    KeyCastAdaptor,
    KeyScaleAdaptor,
    NextElementMapper,
    SampleResult,
    SyntheticDones,
    TagColumn,
    VirtualColumn,
)
from tests.tables import small_columns, small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]


def filled(make_table: MakeTable, lengths: tuple[int, ...] = (5, 9, 4), **options: Any) -> Any:
    table = make_table(**options)
    for identity, length in enumerate(lengths, 1):
        table.add_sequence(identity, small_sequence(identity, length))
    return table


def oldest_first() -> FifoSampleStrategy:
    return FifoSampleStrategy(per_episode=False, random_offset=False)


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (1, 9), (7, 3), (256, 1), (100, 4)])
def test_exactly_so_many_whole_windows(make_table: MakeTable, count: int, steps: int) -> None:
    sample = filled(make_table).sample(count, steps)
    assert isinstance(sample, SampleResult) and isinstance(sample, dict)
    rows = count * steps
    assert {name: (tuple(c.shape), c.dtype) for name, c in sample.items()} == {
        "obs": ((rows, 3), torch.float32),
        "next_obs": ((rows, 3), torch.float32),
        "actions": ((rows,), torch.int64),
        "rewards": ((rows,), torch.float32),
        "dones": ((rows,), torch.bool),
    }
    assert list(sample) == ["obs", "next_obs", "actions", "rewards", "dones"]
    assert torn_windows(sample, steps) == []
    assert sample.weights is None


def test_points_say_where_each_window_lies(make_table: MakeTable) -> None:
    table = filled(make_table)
    table.remove(1)
    table.add_sequence(7, small_sequence(7, 6))
    sample = table.sample(50, 3)
    points = sample.points
    assert sample["obs"][::3, 0].int().tolist() == points.identities.tolist()
    assert sample["obs"][::3, 1].int().tolist() == points.offsets.tolist()
    for array in (points.slots, points.offsets, points.generations, points.identities):
        assert array.dtype == np.int64 and array.shape == (50,)
    assert len(points) == 50
    # The slot that 7 has taken over was 1's: its generation has moved on.
    assert set(points.generations[points.identities == 7]) == {1}
    assert set(points.generations[points.identities != 7]) <= {0}


def test_two_samples_share_no_memory(make_table: MakeTable) -> None:
    table = filled(make_table)
    first, second = table.sample(4, 2), table.sample(4, 2)
    places = {c.data_ptr() for sample in (first, second) for c in sample.values()}
    assert len(places) == 10
    assert not any(column.is_shared() for column in first.values())


def test_a_column_that_is_not_there_is_named_with_those_that_are(make_table: MakeTable) -> None:
    table = make_table()
    table.add_sequence(1, small_sequence(1, 5))
    batch = table.sample(2, 2)
    with pytest.raises(KeyError, match="no column 'reward'; it has obs, next_obs, actions"):
        batch["reward"]
    assert "reward" not in batch and batch.get("reward") is None


def test_batch_time_has_an_axis_for_each(make_table: MakeTable) -> None:
    columns = [
        *small_columns(),
        VirtualColumn("last_obs", (3,), "float32", "obs", NextElementMapper.with_only_last),
        TagColumn("kind", (2,), "int16"),
    ]
    results = []
    for layout in ("flat", "batch_time"):
        table = make_table(columns=columns, layout=layout, sampler=oldest_first())
        for identity, length in ((1, 9), (2, 6)):
            sequence = {**small_sequence(identity, length), "kind": [identity, 0]}
            table.add_sequence(identity, sequence)
        results.append(table.sample(4, 3))
    flat, nested = results
    assert {name: tuple(c.shape) for name, c in nested.items()} == {
        "obs": (4, 3, 3),
        "next_obs": (4, 3, 3),
        "actions": (4, 3),
        "rewards": (4, 3),
        "dones": (4, 3),
        "last_obs": (4, 3),
        "kind": (4, 2),
    }
    for name in flat:
        assert torch.equal(flat[name], nested[name].reshape(flat[name].shape)), name
    assert flat["last_obs"][:, :2].tolist() == [[1, 3], [1, 6], [1, 9], [2, 3]]


@pytest.mark.parametrize("layout", ["flat", "batch_time"])
@pytest.mark.parametrize("pad", ["zero", "edge"])
def test_padding_fills_up_what_a_sequence_lacks(
    make_table: MakeTable, pad: str, layout: str
) -> None:
    table = filled(make_table, (2, 5), pad=pad, layout=layout, sampler=oldest_first())
    sample = table.sample(2, 4)
    assert list(sample) == ["obs", "next_obs", "actions", "rewards", "dones", "mask"]
    shape = (2, 4) if layout == "batch_time" else (8,)
    assert {tuple(sample[name].shape) for name in ("actions", "rewards", "dones", "mask")} == {
        shape
    }
    flat = {name: c.reshape(8, *c.shape[len(shape) :]).tolist() for name, c in sample.items()}
    assert flat["mask"] == [True, True, False, False] + [True] * 4
    assert flat["actions"][4:] == [2000, 2001, 2002, 2003]
    assert flat["dones"][4:] == [False] * 4
    if pad == "zero":
        assert flat["actions"][:4] == [1000, 1001, 0, 0]
        assert flat["obs"][:4] == [[1, 0, 2], [1, 1, 2], [0, 0, 0], [0, 0, 0]]
        assert flat["next_obs"][:4] == [[1, 1, 2], [1, 2, 2], [0, 0, 0], [0, 0, 0]]
        assert flat["dones"][:4] == [False, True, False, False]
    else:
        assert flat["actions"][:4] == [1000, 1001, 1001, 1001]
        assert flat["obs"][:4] == [[1, 0, 2], [1, 1, 2], [1, 1, 2], [1, 1, 2]]
        assert flat["next_obs"][:4] == [[1, 1, 2], [1, 2, 2], [1, 2, 2], [1, 2, 2]]
        assert flat["dones"][:4] == [False, True, True, True]


def test_padding_never_shows_the_rows_behind_a_sequence(make_table: MakeTable) -> None:
    table = filled(make_table, (3,) * 50, pad="edge", maxlen=150)
    for identity in range(100, 140):
        table.add_sequence(identity, small_sequence(identity, 3))
    sample = table.sample(300, 8)
    owners = sample["obs"][:, 0].reshape(300, 8)
    assert (owners == owners[:, :1]).all()
    assert sample["mask"].reshape(300, 8).sum(1).unique().tolist() == [3]


def test_without_padding_there_is_no_mask(make_table: MakeTable) -> None:
    sample = filled(make_table).sample(5, 4)
    assert "mask" not in sample
    assert set(sample.points.identities.tolist()) <= {1, 2, 3}


def test_short_sequences_are_skipped(make_table: MakeTable) -> None:
    assert set(filled(make_table).sample(200, 5).points.identities.tolist()) == {1, 2}


# -- adaptors ----------------------------------------------------------------------------------


def test_adaptors_run_in_order(make_table: MakeTable) -> None:
    table = filled(
        make_table,
        adaptors=[
            KeyScaleAdaptor(0.5, "rewards"),
            KeyCastAdaptor(torch.int32, "rewards"),
            KeyScaleAdaptor(3, "rewards"),
            DictObsAdaptor(["obs"]),
        ],
        sampler=oldest_first(),
    )
    sample = table.sample(1, 4)
    assert list(sample) == ["actions", "rewards", "dones", "observation", "next_observation"]
    assert sample["rewards"].dtype == torch.int32
    assert sample["rewards"].tolist() == [0, 3, 3, 6]  # of 1, 2, 3, 4: halved, cut off, times 3
    assert sample["observation"]["obs"].shape == (4, 3)
    assert len(sample.points) == 1


def test_an_adaptor_may_be_a_single_function(make_table: MakeTable) -> None:
    calls = []

    def adaptor(result: SampleResult, count: int, sequence_length: int) -> SampleResult:
        calls.append((count, sequence_length))
        return SampleResult({"only": result["actions"]}, points=result.points)

    table = filled(make_table, adaptors=adaptor)
    assert list(table.sample(3, 2)) == ["only"]
    assert calls == [(3, 2)]
    assert table.adaptors == [adaptor]
    table.adaptors.clear()
    assert "obs" in table.sample(3, 2)


def test_an_adaptor_that_fails_leaves_the_table_usable(make_table: MakeTable) -> None:
    def adaptor(result: SampleResult, count: int, sequence_length: int) -> SampleResult:
        raise ZeroDivisionError

    table = filled(make_table, adaptors=adaptor)
    with pytest.raises(ZeroDivisionError):
        table.sample(1, 1)
    table.adaptors.clear()
    table.sample(1, 1)


# -- randomness --------------------------------------------------------------------------------


def drawn(table: ArrayMemoryTable, times: int = 5) -> list[list[int]]:
    return [
        [*points.identities.tolist(), *points.offsets.tolist()]
        for points in (table.sample(20, 2).points for _ in range(times))
        if points is not None
    ]


def test_the_same_seed_draws_the_same(make_table: MakeTable) -> None:
    assert drawn(filled(make_table, seed=4)) == drawn(filled(make_table, seed=4))


def test_other_seeds_and_no_seed_draw_otherwise(make_table: MakeTable) -> None:
    options = [{"seed": 4}, {"seed": 5}, {"seed": 2**100}, {}, {}]
    assert len({str(drawn(filled(make_table, **option))) for option in options}) == 5


def test_samples_of_one_table_differ(make_table: MakeTable) -> None:
    samples = drawn(filled(make_table, seed=4), times=20)
    assert len({str(sample) for sample in samples}) == 20


def test_global_generators_are_left_alone(make_table: MakeTable) -> None:
    table = filled(make_table, seed=4)
    torch.manual_seed(1)
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    drawn(table)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)


# -- columns -----------------------------------------------------------------------------------


def test_many_dtypes_at_once(make_table: MakeTable) -> None:
    names = ["bool", "uint8", "int16", "int64", "float16", "bfloat16", "float64", "complex64"]
    columns = [Column(name, (2,), name) for name in names]
    table = make_table(columns=[*columns, Column("actions", (), "int32")], pad="zero")
    rows = torch.tensor([[1, 0], [0, 1], [1, 1]])
    sequence: dict[str, Any] = {name: rows.to(getattr(torch, name)) for name in names}
    table.add_sequence(1, {**sequence, "actions": [1, 2, 3]})
    sample = table.sample(1, 4)
    for name in names:
        assert sample[name].dtype == getattr(torch, name)
        assert sample[name][:3].real.float().tolist() == rows.tolist() or name == "complex64"
        assert sample[name][3].abs().sum() == 0 if name != "bool" else not sample[name][3].any()
        assert torch.equal(table.sequence(1)[name], sequence[name])


def test_masks_are_zero_at_the_end_only(make_table: MakeTable) -> None:
    columns = [
        Column("actions", (), "int8"),
        VirtualColumn("masks", (1,), "float32", "actions", SyntheticDones.as_mask),
    ]
    table = make_table(columns=columns, sampler=oldest_first())
    table.add_sequence(1, {"actions": np.zeros(6).astype("int8")})
    assert table.sample(2, 3)["masks"].tolist() == [[1], [1], [1], [1], [1], [0]]
