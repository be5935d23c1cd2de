"""Pearson's chi-squared test, and what a table offers to draw from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from shmtable import ArrayMemoryTable

# With fixed seeds a test passes or fails for good; for a new seed, one in ten million would fail.
LEAST_P = 1e-7


def p_value(drawn: Iterable[object], choices: Iterable[object] | Mapping[Any, float]) -> float:
    """How likely draws at least as far from expected as these are.

    Args:
        drawn: what was drawn.
        choices: what can be: each equally likely, or in proportion to its weight.
    """
    counts = Counter(drawn)
    weights = choices if isinstance(choices, Mapping) else dict.fromkeys(choices, 1.0)
    assert set(counts) <= set(weights), f"drawn, but not on offer: {set(counts) - set(weights)}"
    factor = sum(counts.values()) / sum(weights.values())
    expected = {choice: weight * factor for choice, weight in weights.items() if weight}
    assert min(expected.values()) >= 20, "too few draws to tell"
    assert set(counts) <= set(expected), "drawn, with a weight of 0"
    statistic = sum((counts[choice] - e) ** 2 / e for choice, e in expected.items())
    half = torch.tensor([(len(expected) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def windows(table: ArrayMemoryTable, steps: int, *, padded: bool = False) -> list[tuple[int, int]]:
    """(identity, offset) of every window that the table offers."""
    return [
        (identity, offset)
        for identity in table.identities().tolist()
        for offset in range(max(length_of(table, identity) - steps + 1, 1 if padded else 0))
    ]


def length_of(table: ArrayMemoryTable, identity: int) -> int:
    """Transitions of a sequence."""
    return len(table.sequence(identity)["actions"])


def draw(table: ArrayMemoryTable, count: int, steps: int) -> list[tuple[int, int]]:
    """(identity, offset) of ``count`` windows sampled."""
    points = table.sample(count, steps).points
    assert points is not None and len(points) == count
    return list(zip(points.identities.tolist(), points.offsets.tolist(), strict=True))
