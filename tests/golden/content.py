"""What the golden files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shmtable import Column, NextElementMapper, SyntheticDones, TagColumn, VirtualColumn

FOLDER = Path(__file__).parent
SEQUENCES = 20
TRANSITIONS = 158


def columns() -> list[Column]:
    """The columns, in declared order."""
    return [
        Column("features", (3,), "float32"),
        Column("pixels", (2, 2), "uint8"),
        VirtualColumn("next_features", (3,), "float32", "features", NextElementMapper),
        Column("actions", (), "int64"),
        Column("rewards", (1,), "float64"),
        VirtualColumn("dones", (1,), bool, "actions", SyntheticDones),
        VirtualColumn("masks", (1,), "float32", "actions", SyntheticDones.as_mask),
        TagColumn("terminal", (), "float32"),
    ]


def sequence(i: int) -> tuple[int, dict[str, Any]]:
    """Identity and content of sequence ``i``, 0 to 19."""
    identity, length = 1000 + i * i, 3 + 7 * i % 11
    ahead, steps = np.arange(length + 1), np.arange(length)
    return identity, {
        "features": (identity + ahead[:, None] / 2 + np.arange(3) / 8).astype(np.float32),
        "pixels": ((i + steps)[:, None, None] * np.array([[0, 1], [2, 3]]) % 256).astype(np.uint8),
        "actions": 100 * i + steps,
        "rewards": ((i - steps) / 8)[:, None],
        "terminal": np.float32(i % 2),
    }
