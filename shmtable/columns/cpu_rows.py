"""How the columns of a table in CPU memory lie there, and how they are copied out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns.groups import Place
from shmtable.types import Int64Array


@dataclass(frozen=True, slots=True)
class View:
    """Rows as overlapping windows [starts], so that selecting one copies it in one piece.

    Attributes:
        windows: every window as one opaque item, for numpy.
        tensor: the same windows as [starts, words] of integers, for torch. Wide ones: windows of
            more elements than torch's grain size (32768) are copied through a slower path.
        word: one of those integers.
    """

    windows: npt.NDArray[Any]
    tensor: Tensor
    word: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Together:
    """Columns that are copied in one go, because they lie side by side.

    Attributes:
        view: the whole rows.
        take: copies those that begin at given rows, at once; None where ``view`` is to be copied
            in whichever way suits so much memory.
        rows: how many a copy has.
        row: dtype of one, with a field for each of the columns.
        columns: their names, and the torch dtype where numpy has none like it.
    """

    view: View
    take: Callable[[Int64Array], npt.NDArray[Any]] | None
    rows: int
    row: np.dtype[Any]
    columns: list[tuple[str, torch.dtype | None]]


@dataclass(frozen=True, slots=True)
class Item:
    """A column's part of a row.

    Attributes:
        region: number of the region.
        place: where in it.
        row_bytes: of the column.
        dtype: numpy dtype of the stored bits.
        shape: of one row.
        strides: bytes from element to element in rows that lie in a block of whole rows.
        recast: the column's torch dtype, where numpy has none like it.
        rows: all of them, [rows, *shape], to be written.
    """

    region: int
    place: Place
    row_bytes: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    recast: torch.dtype | None
    rows: npt.NDArray[Any]


def taking(windows: npt.NDArray[Any]) -> Callable[[Int64Array], npt.NDArray[Any]]:
    """What copies windows by their places, the quickest way.

    Items one after the other are taken in half the time of an indexing; of others ``take`` would
    first copy all there are.
    """
    return windows.take if windows.strides[0] == windows.itemsize else windows.__getitem__
