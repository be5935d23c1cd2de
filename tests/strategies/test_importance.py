"""Importance weights, where chances are hardly numbers."""

from __future__ import annotations

import math

import numpy as np

from shmtable.strategies.priorities import importance_weights
from shmtable.types import SamplePoints


def test_a_weight_is_a_number_even_where_a_chance_is_too_small_for_one() -> None:
    none = np.zeros(3, np.int64)
    points = SamplePoints(none, none, none, none, none, none, np.array([0.0, 0.5, 0.5]))
    with np.errstate(invalid="ignore"):
        weights = importance_weights(points, 0.4, math.inf)
    assert weights is not None and weights.tolist() == [1.0, 0.0, 0.0]
