"""Windows moved to the end of their sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from shmtable import (
    ArrayMemoryTable,
    EndAlignedSampleStrategy,
    MixtureSampleStrategy,
    PrioritizedSampleStrategy,
    SpecError,
    UniformSampleStrategy,
)
from tests.tables import small_sequence, torn_windows

MakeTable = Callable[..., ArrayMemoryTable]


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("pad", [None, "edge"])
def test_so_many_windows_end_with_their_sequence(
    make_table: MakeTable, probability: float, pad: str | None
) -> None:
    sampler = EndAlignedSampleStrategy(UniformSampleStrategy(), probability)
    table = make_table(sampler=sampler, seed=3, pad=pad, maxlen=4000)
    for identity in range(10):
        table.add_sequence(identity, small_sequence(identity, 300))
    table.add_sequence(10, small_sequence(10, 2))  # shorter than the window
    sample = table.sample(8000, 5)
    points = sample.points
    assert points is not None
    if pad is None:
        assert torn_windows(sample, 5) == []
    long = points.lengths == 300
    at_end = (points.offsets + 5 == points.lengths)[long].mean()
    # One in 296 ends there by itself; the deviation of the rest is at most 0.005.
    assert at_end == pytest.approx(probability + (1 - probability) / 296, abs=0.025)
    assert (points.offsets[~long] == 0).all()
    assert (points.starts - points.offsets >= 0).all()


def test_weights_of_what_was_moved_are_1(make_table: MakeTable) -> None:
    sampler = EndAlignedSampleStrategy(PrioritizedSampleStrategy(alpha=1.0, beta=1.0), 0.5)
    table = make_table(sampler=sampler, seed=3)
    table.add_sequence(0, small_sequence(0, 100), priority=list(range(1, 101)))
    sample = table.sample(400, 1)
    assert sample.points is not None and sample.weights is not None
    moved = torch.from_numpy(sample.points.offsets == 99)
    assert 150 < moved.sum() < 250
    assert (sample.weights[moved] == 1).sum() > 150
    rest = torch.from_numpy(sample.points.offsets)[~moved].double() + 1 + 1e-6
    assert torch.allclose(sample.weights[~moved].double(), rest.min() / rest, rtol=1e-5)


@pytest.mark.parametrize(
    ("member", "probability", "said"),
    [
        (UniformSampleStrategy(), 1.5, "probability is 1.5; give a number from 0 to 1"),
        (UniformSampleStrategy(), float("nan"), "probability is nan"),
        ("uniform", 0.5, "member 'uniform' is no sampler"),
        (MixtureSampleStrategy([(1, UniformSampleStrategy())]), 0.5, "is made of samplers itself"),
    ],
)
def test_what_cannot_be_is_refused(member: Any, probability: float, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        EndAlignedSampleStrategy(member, probability)
