"""Which steps of a window only warm a recurrent network up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.errors import SpecError
from shmtable.mappers.base import Mapper, as_declared, check_one_value, whole_number


class BurnIn(Mapper):
    """1 (True) on the first steps of every window, 0 on those that are learned from.

    A recurrent network is run over all steps of a window, and its loss taken over the later ones
    only (Kapturowski et al., 2019, section 3). So for 80 steps to learn from after 40 of burn-in,
    sample windows of 120. On steps that ``pad`` has filled in, see the ``mask`` column too.

    The column's shape has one element per transition: (), (1,), ... Its dtype may be any.

    Args:
        steps: how many, at least 1.
        mask: give the complement, 0 on the first steps and 1 on the others; what multiplies a
            loss.
    """

    def __init__(self, steps: int, mask: bool = False) -> None:
        self.steps = whole_number("steps", steps, 1)
        if not isinstance(mask, bool):
            raise SpecError(f"mask is {mask!r}; give True or False")
        self.mask = mask

    @classmethod
    def as_mask(cls, steps: int) -> BurnIn:
        """A mapper that gives the complement."""
        return cls(steps, mask=True)

    def config(self) -> dict[str, Any]:
        return {"steps": self.steps, "mask": self.mask}

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        check_one_value(column, "the burn-in of a window")

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        steps = np.full((len(windows), windows.steps), self.mask)
        steps[:, : self.steps] = not self.mask
        return as_declared(torch.from_numpy(steps.reshape(-1)), column)
