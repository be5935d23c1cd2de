"""Where sequences end, told from their lengths instead of from a stored column."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.errors import SpecError
from shmtable.mappers.base import Mapper


class SyntheticDones(Mapper):
    """1 (True) on the last transition of a sequence, 0 elsewhere.

    The column's shape has one element per transition: (), (1,), ... Its dtype may be any.

    Args:
        mask: give the complement, 0 on the last transition and 1 elsewhere; what multiplies
            a bootstrap value.
    """

    def __init__(self, mask: bool = False) -> None:
        if not isinstance(mask, bool):
            raise SpecError(f"mask is {mask!r}; give True or False")
        self.mask = mask

    @classmethod
    def as_mask(cls) -> SyntheticDones:
        """A mapper that gives the complement; may be passed to a column uncalled."""
        return cls(mask=True)

    def config(self) -> dict[str, Any]:
        return {"mask": self.mask}

    def check(self, column: VirtualColumn, target: Column) -> None:
        if math.prod(column.shape) != 1:
            raise SpecError(
                f"column '{column.name}': shape is {column.shape}, but the end of a sequence of "
                f"'{target.name}' is one value per transition; declare shape=()",
                column=column.name,
                target_name=target.name,
            )

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        ends = windows.ends(last=not self.mask)
        if column.dtype.name != "bool":
            ends = ends.to(column.dtype.torch)
        return ends.view(-1, *column.shape) if column.shape else ends
