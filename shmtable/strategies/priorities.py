"""What strategies that know priorities or weights have in common."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shmtable.errors import SpecError
from shmtable.strategies.trees import Float64Array
from shmtable.types import Int64Array, SamplePoints

# Far above any error or return, and far below what could overflow in a sum of powers.
MOST_PRIORITY = 1e64


def mixed(priorities: Float64Array, eta: float) -> Float64Array:
    """One priority per window, float64 [B]: ``eta`` of the highest and the rest of the mean.

    Args:
        priorities: float64 [B, L], NaN where there is no transition.
        eta: 0 to 1.
    """
    if priorities.shape[1] == 1:
        return priorities[:, 0]
    highest = np.fmax.reduce(priorities, axis=1)
    mean: Float64Array = np.nanmean(priorities, axis=1)
    both: Float64Array = eta * highest + (1 - eta) * mean
    return both


def believed(priorities: Float64Array, places: Int64Array, instead: float) -> Float64Array:
    """The priorities in these places; what a damaged file has brought is replaced in the array."""
    found = priorities[places]
    wrong = ~((found >= 0) & (found <= MOST_PRIORITY))  # NaN too
    if wrong.any():
        found[wrong] = priorities[places[wrong]] = instead
    return found


def importance_weights(points: SamplePoints, beta: float, least: float) -> Tensor | None:
    """Weights that correct for unequal chances, the greatest being 1: float32 [B].

    Args:
        points: windows with chances; None comes back for those without any.
        beta: 0 to 1, how much is corrected.
        least: the lowest chance of all, where known; the batch's is taken if that is lower.
    """
    chances = points.chances
    if chances is None:
        return None
    lowest = float(chances.min())
    unknown = math.isnan(lowest)
    if unknown:
        lowest = float(np.fmin.reduce(chances))
    weights = min(lowest, least) / chances
    weights **= beta
    found = torch.from_numpy(weights.astype(np.float32))
    # 0 / 0 is NaN as well: a chance may be too small for a number.
    return found.nan_to_num_(1.0) if unknown or not lowest else found


def within(name: str, value: Any, most: float) -> float:
    """A setting between 0 and ``most``.

    Raises:
        SpecError: it is not.
    """
    number: Any = value
    if not isinstance(value, Real) or not 0 <= number <= most:
        raise SpecError(f"{name} is {value!r:.80}; give a number from 0 to {most:g}")
    return float(number)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """A setting that is one of these names.

    Raises:
        SpecError: it is not.
    """
    if value not in choices:
        raise SpecError(f"{name} is {value!r}; give one of {choices}")
    return str(value)
