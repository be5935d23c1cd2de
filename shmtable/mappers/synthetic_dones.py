"""Where sequences end, told from their lengths instead of from a stored column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.errors import SpecError
from shmtable.mappers.base import Mapper, as_declared, check_one_value


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

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        check_one_value(column, f"the end of a sequence of '{target.name}'")

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        return as_declared(windows.ends(last=not self.mask), column)
