"""Where in its sequence a transition stands."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.mappers.base import Mapper, as_declared, check_one_value


class PositionMapper(Mapper):
    """For each transition, its position in its sequence: 0 on the first.

    The column's shape has one element per transition: (), (1,), ... Its dtype may be any that
    holds the numbers; int64 always does.
    """

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        check_one_value(column, "the position in a sequence")

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        return as_declared(windows.positions(), column)
