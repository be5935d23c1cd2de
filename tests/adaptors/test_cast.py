"""Casting a column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shmtable.adaptors import KeyCastAdaptor
from shmtable.errors import SpecError
from tests.adaptors.samples import COUNT, STEPS, sample


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (np.float64, torch.float64),
        (int, torch.int64),
        ("float16", torch.float16),
    ],
)
def test_it_really_casts(dtype: Any, expected: torch.dtype) -> None:
    result = KeyCastAdaptor(dtype, "pixels")(sample(), COUNT, STEPS)
    assert result["pixels"].dtype == expected
    assert result["pixels"].tolist() == [0, 1, 2, 3, 4, 5]
    assert result["next_pixels"].dtype == torch.uint8


def test_refused() -> None:
    with pytest.raises(SpecError, match=r"^dtype 'pixels' cannot be stored; give a numpy or "):
        KeyCastAdaptor("pixels", "float32")
    with pytest.raises(SpecError, match=r"^key is None; give the name of a column$"):
        KeyCastAdaptor("float32", None)  # type: ignore[arg-type]
