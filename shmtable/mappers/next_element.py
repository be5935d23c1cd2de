"""The element one step later: next observations, stored once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.errors import SpecError
from shmtable.mappers.base import Mapper, check_same_element


class NextElementMapper(Mapper):
    """For each transition, the target's element one step later.

    The target's sequences bring one row more than their length: the element after the last
    transition.

    Args:
        only_last: give one row per window, the element after the window's last transition;
            what bootstrapping over a whole window needs.
    """

    look_ahead = 1

    def __init__(self, only_last: bool = False) -> None:
        if not isinstance(only_last, bool):
            raise SpecError(f"only_last is {only_last!r}; give True or False")
        self.per_window = only_last

    @classmethod
    def with_only_last(cls) -> NextElementMapper:
        """A mapper that gives one row per window; may be passed to a column uncalled."""
        return cls(only_last=True)

    def config(self) -> dict[str, Any]:
        return {"only_last": self.per_window}

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        check_same_element(column, target)

    def shift(self) -> int | None:
        """See ``Mapper``."""
        return None if self.per_window else 1

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        if self.per_window:
            return windows.gather_last(column.target_name, 1)
        return windows.gather(column.target_name, 1)
