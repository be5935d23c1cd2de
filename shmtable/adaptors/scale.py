"""One column multiplied by a factor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from shmtable.adaptors.base import check_key, columns_of
from shmtable.errors import SpecError
from shmtable.types import SampleResult


class KeyScaleAdaptor:
    """Multiplies a column by ``scale``.

    Floating point columns keep their dtype; integers become floating point if the scale is.

    Args:
        scale: a number, or an array or tensor that broadcasts with the column.
        key: the column.

    Raises:
        SpecError: a scale that is no array of numbers, or a key that is no string.
    """

    def __init__(self, scale: Any, key: str) -> None:
        self.key = check_key("key", key)
        if isinstance(scale, Tensor):
            scale = scale.detach().cpu().numpy()
        # Kept as an array, not a tensor: torch pickles a tensor as a file descriptor.
        self.scale = np.array(scale)
        if self.scale.dtype.kind not in "buifc":
            raise SpecError(f"scale is {scale!r}; give a number, or an array of numbers")

    def __call__(self, result: SampleResult, count: int, sequence_length: int) -> SampleResult:
        (value,) = columns_of(self, result, [self.key])
        factor = torch.as_tensor(self.scale, device=value.device)
        if not factor.is_complex() and value.is_floating_point():
            factor = factor.to(value.dtype)
        elif factor.is_floating_point() and not value.is_complex():
            factor = factor.to(torch.get_default_dtype())
        result[self.key] = value * factor
        return result
