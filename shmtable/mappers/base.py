"""The contract of a mapper: how a virtual column is computed from a stored one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.errors import SpecError
from shmtable.types import BoolArray

if TYPE_CHECKING:
    from typing_extensions import Self


class Mapper(ABC):
    """Computes a virtual column at sampling.

    A mapper holds settings and no data. It must be possible to make it again from
    :meth:`config`, because other processes do, and two with equal settings are equal.

    Attributes:
        look_ahead: rows of the target needed beyond a window's last transition; sequences
            bring that many more rows of it. Constant for one mapper.
        per_window: True when it gives one row per window instead of one per transition.
    """

    look_ahead: int = 0
    per_window: bool = False

    @abstractmethod
    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        """Compute the column for one batch.

        Args:
            windows: B windows of L steps of the table's stored columns.
            column: the virtual column itself: its shape, dtype and target.

        Returns:
            ``[B * L, *column.shape]``, windows contiguous and in time order, or
            ``[B, *column.shape]`` if ``per_window``; in the column's dtype, fresh memory.
        """

    def shift(self) -> int | None:
        """How many steps later its target is what this column is; None if it is computed.

        Of a column that is its target's rows as they are, at most ``look_ahead`` steps later,
        :meth:`compute` need not be called. A subclass with a ``compute`` of its own is computed,
        unless it says otherwise itself.
        """
        return None

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "compute" in cls.__dict__ and "shift" not in cls.__dict__:
            cls.shift = Mapper.shift  # type: ignore[method-assign]

    def config(self) -> dict[str, Any]:
        """The settings, as keyword arguments of the class, in types that JSON knows."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a mapper from what :meth:`config` returned.

        Raises:
            SpecError: settings this class does not take.
        """
        try:
            return cls(**config)
        except TypeError as error:
            raise SpecError(
                f"mapper {cls.__name__} does not take the settings {config!r:.200}: {error}",
                mapper=cls.__name__,
            ) from error

    def check(  # noqa: B027
        self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]
    ) -> None:
        """Refuse a column that cannot be computed from its target.

        Args:
            column: the virtual column.
            target: the stored column it is computed from.
            columns: all stored columns and tags by name, for a mapper that reads several.

        Raises:
            SpecError: naming both columns.
        """

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.config() == other.config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.config())))

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in self.config().items())
        return f"{type(self).__name__}({settings})"


def check_same_element(column: VirtualColumn, target: Column) -> None:
    """Refuse a column that repeats its target's elements under another shape or dtype.

    Raises:
        SpecError: naming both columns, their shapes and dtypes.
    """
    if column.shape != target.shape or column.dtype != target.dtype:
        raise SpecError(
            f"column '{column.name}': shape {column.shape} and dtype {column.dtype} differ from "
            f"those of its target '{target.name}', {target.shape} and {target.dtype}; "
            "declare both alike",
            column=column.name,
            target_name=target.name,
        )


def check_one_value(column: VirtualColumn, what: str) -> None:
    """Refuse a column that has more than one element per transition.

    Args:
        column: the virtual column.
        what: it is computed from, for the message.

    Raises:
        SpecError: naming the column and its shape.
    """
    if math.prod(column.shape) != 1:
        raise SpecError(
            f"column '{column.name}': shape is {column.shape}, but {what} is one value per "
            "transition; declare shape=()",
            column=column.name,
            target_name=column.target_name,
        )


def as_declared(values: Tensor, column: VirtualColumn) -> Tensor:
    """Values of one element per row, [N], in the column's shape and dtype: [N, *shape]."""
    if values.dtype != column.dtype.torch:
        values = values.to(column.dtype.torch)
    return values.view(-1, *column.shape) if column.shape else values


def zero_rows(windows: Windows, values: Tensor, rows: BoolArray) -> None:
    """Zero, in place, the values [*rows.shape, ...] gathered where ``rows`` is True."""
    if rows.any():
        # As bytes: not every dtype can be assigned to. Zero bits are zero in all that have one.
        flat = rows.reshape(-1)
        if windows.host:
            values.view(torch.uint8).numpy().reshape(rows.size, -1)[flat] = 0
        else:
            places = windows.bring(flat.nonzero()[0])
            values.view(torch.uint8).view(rows.size, -1).index_fill_(0, places, 0)


def whole_number(what: str, value: Any, least: int) -> int:
    """A setting that counts something.

    Raises:
        SpecError: it is no ``int``, or less than ``least``.
    """
    if type(value) is not int or value < least:
        raise SpecError(f"{what} is {value!r}; give an integer of at least {least}")
    return value
