"""Derived columns computed the plain way: over Python lists, one step after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = Sequence[Any]


def steps_of(offset: int, length: int, steps: int) -> list[int]:
    """Positions of a window's steps; past the end the last transition is repeated."""
    return [min(offset + step, length - 1) for step in range(steps)]


def stack(rows: Rows, length: int, at: int, n: int, pad: str, ahead: int) -> list[Any]:
    """The n frames up to ``ahead`` steps after position ``at``."""
    last = min(at + ahead, length)
    frames: list[Any] = []
    for place in range(last - n + 1, last + 1):
        if place >= 0:
            frames.append(rows[place])
        else:
            frames.append(rows[0] if pad == "edge" else np.zeros_like(rows[0]))
    return frames


def n_step(
    rewards: Rows, ends: Sequence[bool], at: int, n: int, gamma: float
) -> tuple[npt.NDArray[np.float64], float, int]:
    """Walk n steps from ``at``: the return, the bootstrap discount, and where it bootstraps.

    Args:
        rewards: of one sequence.
        ends: for each of its transitions, whether it truly ends.
    """
    total = np.zeros_like(np.asarray(rewards[0], np.float64))
    discount = 1.0
    for place in range(at, min(at + n, len(rewards))):
        total = total + discount * np.asarray(rewards[place], np.float64)
        discount *= gamma
        if ends[place]:
            return total, 0.0, place + 1
    return total, discount, min(at + n, len(rewards))
