"""The element n steps later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.mappers.base import Mapper, check_same_element, whole_number


class NextNElementWrapper(Mapper):
    """For each transition, the target's element n steps later.

    The target's sequences bring n rows more than their length.

    Args:
        n: steps ahead, at least 1.
    """

    def __init__(self, n: int) -> None:
        self.look_ahead = whole_number("n", n, 1)

    @classmethod
    def with_n(cls, n: int) -> NextNElementWrapper:
        """A mapper that looks ``n`` steps ahead.

        Raises:
            SpecError: ``n`` is not an integer of at least 1.
        """
        return cls(n)

    def config(self) -> dict[str, Any]:
        return {"n": self.look_ahead}

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        check_same_element(column, target)

    def shift(self) -> int | None:
        """See ``Mapper``."""
        return self.look_ahead

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        return windows.gather(column.target_name, self.look_ahead)
