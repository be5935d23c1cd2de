"""Small samples to adapt."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shmtable.types import SamplePoints, SampleResult

COUNT, STEPS = 2, 3


def sample(layout: str = "flat", **columns: Any) -> SampleResult:
    """Two windows of three steps with obs, next_obs, pixels, masks and terminal."""
    given: dict[str, Any] = {
        "obs": torch.arange(12.0).view(6, 2),
        "next_obs": torch.arange(12.0).view(6, 2) + 2,
        "pixels": torch.arange(6, dtype=torch.uint8),
        "next_pixels": torch.arange(6, dtype=torch.uint8) + 1,
        "masks": torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]),
        **columns,
    }
    if layout == "batch_time":
        given = {name: value.view(COUNT, STEPS, *value.shape[1:]) for name, value in given.items()}
    given["terminal"] = torch.tensor([0.5, 0.25])
    index = np.arange(COUNT)
    return SampleResult(given, points=SamplePoints(*[index] * 6), weights=torch.ones(COUNT))
