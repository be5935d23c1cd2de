"""The element n steps later."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.errors import SpecError
from shmtable.mappers.base import Mapper, check_same_element


class NextNElementWrapper(Mapper):
    """For each transition, the target's element n steps later.

    The target's sequences bring n rows more than their length.

    Args:
        n: steps ahead, at least 1.
    """

    def __init__(self, n: int) -> None:
        if type(n) is not int or n < 1:
            raise SpecError(f"n is {n!r}; give an integer of at least 1", n=repr(n))
        self.look_ahead = n

    @classmethod
    def with_n(cls, n: int) -> NextNElementWrapper:
        """A mapper that looks ``n`` steps ahead.

        Raises:
            SpecError: ``n`` is not an integer of at least 1.
        """
        return cls(n)

    def config(self) -> dict[str, Any]:
        return {"n": self.look_ahead}

    def check(self, column: VirtualColumn, target: Column) -> None:
        check_same_element(column, target)

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        return windows.gather(column.target_name, self.look_ahead)
