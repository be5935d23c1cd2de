"""Scaling a column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shmtable.adaptors import KeyScaleAdaptor
from shmtable.errors import SpecError
from tests.adaptors.samples import COUNT, STEPS, sample


@pytest.mark.parametrize(
    ("scale", "dtype", "result_dtype"),
    [
        (0.5, torch.float32, torch.float32),
        (0.5, torch.float64, torch.float64),
        (0.5, torch.bfloat16, torch.bfloat16),
        (2, torch.float32, torch.float32),
        (1 / 255, torch.uint8, torch.float32),
        (2, torch.int32, torch.int32),
        (np.float64(0.5), torch.uint8, torch.float32),
        (np.array([0.5, 2.0]), torch.float32, torch.float32),
        (torch.tensor([0.5, 2.0], dtype=torch.float64), torch.uint8, torch.float32),
        ([0.5, 2.0], torch.float16, torch.float16),
        (2j, torch.float32, torch.complex64),
        (0.5, torch.complex64, torch.complex64),
    ],
)
def test_dtypes(scale: Any, dtype: torch.dtype, result_dtype: torch.dtype) -> None:
    obs = torch.arange(12).view(6, 2).to(dtype)
    result = KeyScaleAdaptor(scale, "obs")(sample(obs=obs), COUNT, STEPS)
    assert result["obs"].dtype == result_dtype
    wanted = obs.to(torch.complex128) * torch.as_tensor(scale)
    assert torch.allclose(result["obs"].to(torch.complex128), wanted, atol=1e-2)
    assert torch.equal(result["next_obs"], sample()["next_obs"])


def test_the_scale_is_the_adaptors_own() -> None:
    scale = np.array([1.0, 2.0])
    adaptor = KeyScaleAdaptor(scale, "obs")
    scale[:] = 0
    assert torch.equal(adaptor(sample(), COUNT, STEPS)["obs"][0], torch.tensor([0.0, 2.0]))


@pytest.mark.parametrize("scale", ["half", None])
def test_refused(scale: Any) -> None:
    with pytest.raises(SpecError) as raised:
        KeyScaleAdaptor(scale, "obs")
    assert str(raised.value) == f"scale is {scale!r}; give a number, or an array of numbers"


def test_arguments_in_the_wrong_order() -> None:
    with pytest.raises(SpecError, match=r"^key is 0.5; give the name of a column$"):
        KeyScaleAdaptor("obs", 0.5)  # type: ignore[arg-type]
