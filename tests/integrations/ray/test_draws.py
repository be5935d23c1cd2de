"""Which shard gives which window: the arithmetic, without any shard."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs ray: pip install 'shmtable[ray]'")

import numpy as np
import torch

from shmtable import Column
from shmtable.integrations.ray import draws
from shmtable.integrations.ray.values import Offer, Part
from tests.strategies.chance import LEAST_P, p_value

ASKED = [
    [0.25, 0.25, 0.5],
    [1 / 3, 1 / 3, 1 / 3],
    [1.0, 0.0, 0.0],
    [0.0, 0.5, 0.5],
]
RIGHT = [
    [0.25, 0.25, 0.5],
    [0.6, 0.3, 0.1],
    [0.0, 0.1, 0.9],
    [0.0, 0.0, 1.0],
]


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("right", RIGHT, ids=str)
def test_windows_come_as_is_right_whatever_was_asked(
    asked: list[float], right: list[float]
) -> None:
    random = np.random.default_rng(7)
    count = 60_000
    shards = draws.drawn(count, np.array(asked), random)
    moved, to = draws.redrawn(shards, np.array(asked), np.array(right), random)
    shards[moved] = to
    if 1.0 in right:
        assert (shards == right.index(1.0)).all()
        return
    assert p_value(shards.tolist(), dict(enumerate(right))) > LEAST_P
    # Neighbours are independent: pairs are as likely as their two parts say.
    both = dict(enumerate(np.outer(right, right).reshape(-1).tolist()))
    assert p_value((shards[::2] * 3 + shards[1::2]).tolist(), both) > LEAST_P


@pytest.mark.parametrize("asked", ASKED[:2], ids=str)
@pytest.mark.parametrize("right", RIGHT, ids=str)
def test_no_more_windows_are_drawn_anew_than_must_be(
    asked: list[float], right: list[float]
) -> None:
    random = np.random.default_rng(8)
    count = 60_000
    shards = draws.drawn(count, np.array(asked), random)
    moved, _ = draws.redrawn(shards, np.array(asked), np.array(right), random)
    distance = np.abs(np.array(asked) - right).sum() / 2
    assert abs(len(moved) / count - distance) < 0.01


def test_what_is_unknown_counts_as_an_average_shard() -> None:
    assert draws.guessed([None, None]).tolist() == [0.5, 0.5]
    assert draws.guessed([0.0, 0.0]).tolist() == [0.5, 0.5]
    assert draws.guessed([0.0, None]).tolist() == [0.0, 1.0]
    assert draws.guessed([1.0, 3.0, None]).tolist() == [1 / 6, 3 / 6, 2 / 6]
    assert draws.chances([0.0, 0.0]) is None


def part(table: int, value: int, windows: int, steps: int, weight: float = 1.0) -> Part:
    offer = Offer(table, weight, 100, 10, 0.5, float("inf"))
    columns = {
        "actions": np.full(windows * steps, value, np.int64),
        "half": np.full((windows * steps, 2), value, np.int16),
        "first": np.full((windows, 3), value, np.float32),
    }
    points = np.full((6, windows), value, np.int64)
    return Part(offer, columns, points, np.full(windows, weight))


def test_a_batch_has_every_window_in_its_place() -> None:
    columns = {"half": Column("half", (2,), "bfloat16")}
    batch = draws.Batch(5, columns)
    batch.put(np.array([0, 3]), part(11, 1, 4, 2, weight=4.0))
    batch.put(np.array([1, 2, 4]), part(22, 2, 3, 2, weight=1.0))
    batch.put(np.array([], np.int64), part(33, 3, 0, 2))
    sample = batch.result()
    assert sample["actions"].view(5, 2).tolist() == [[1, 1], [2, 2], [2, 2], [1, 1], [2, 2]]
    assert sample["first"][:, 0].tolist() == [1, 2, 2, 1, 2]
    assert sample["half"].dtype is torch.bfloat16
    assert sample["half"].shape == (10, 2)
    assert sample.points.tables == (11, 22)
    assert sample.points.sources.tolist() == [0, 1, 1, 0, 1]
    # beta is 0.5: a window four times as likely counts half.
    assert sample.weights is not None
    assert sample.weights.tolist() == [0.5, 1.0, 1.0, 0.5, 1.0]
    places, own = sample.points.of(1)
    assert places.tolist() == [1, 2, 4]
    assert own.slots.tolist() == [2, 2, 2]
    some = sample.points.at(slice(2))
    assert some.tables == (11, 22)
    assert some.sources.tolist() == [0, 1]
