"""How old a transition is, counted in transitions added since."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.mappers.base import Mapper, as_declared, check_one_value


class AgeMapper(Mapper):
    """For each transition, how many were added to the table after it: 0 for the newest.

    Counted over all processes, from when each sequence was added; removed transitions count
    too. It is exact for a moment between the call of ``sample`` and its return. A restored
    table counts as added anew, in the order of the file.

    The column's shape has one element per transition: (), (1,), ... Its dtype may be any that
    holds the numbers; int64 always does.
    """

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        check_one_value(column, "the age")

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        return as_declared(windows.ages(), column)
