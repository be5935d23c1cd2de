"""The element one step before: previous actions and rewards."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.mappers.base import Mapper, check_same_element, zero_rows


class PreviousElementMapper(Mapper):
    """For each transition, the target's element one step before; zero on a sequence's first.

    What recurrent agents get as their previous action and reward. Windows that start inside a
    sequence find the element before their first transition too.
    """

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        check_same_element(column, target)

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        at = windows.positions().numpy() - 1
        found = windows.gather_at(column.target_name, torch.from_numpy(at))
        zero_rows(windows, found, at < 0)
        return found
