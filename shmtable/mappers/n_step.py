"""Returns over n steps: the rewards' sum, what discounts the bootstrap value, and where it is.

With r the rewards of one sequence and m the steps that count, the learning target of a transition
is ``r[0] + gamma r[1] + ... + gamma^(m - 1) r[m - 1] + discount * value(bootstrap observation)``.
Usually m = n. Near the end of a sequence m is what is left of it. If the sequence was only cut
off (truncated), the bootstrap observation is the one behind its last transition, and the discount
gamma^m. If it came to a true end (terminated), nothing follows, and the discount is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.errors import SpecError
from shmtable.mappers.base import (
    Mapper,
    as_declared,
    check_one_value,
    check_same_element,
    whole_number,
)
from shmtable.types import BoolArray, Int64Array

_Floats = npt.NDArray[np.float64]


class NStepReturn(Mapper):
    """For each transition, the discounted sum of its reward and the n - 1 after it.

    The sum ends with the sequence, and with the first step that ``terminated`` marks. It is
    computed in float64. The target is the rewards' column, of any real dtype; this column has its
    shape and a floating point dtype. Rewards beyond the window count as long as they are in the
    sequence.

    Args:
        n: steps, at least 1.
        gamma: discount per step, 0 to 1.
        terminated: name of a stored column or a tag, as for :class:`NStepDiscount`. Only needed
            where steps inside a sequence are marked, such as a lost life.
    """

    def __init__(self, n: int, gamma: float, terminated: str | None = None) -> None:
        self.n = whole_number("n", n, 1)
        self.gamma = _checked_gamma(gamma)
        self.terminated = _checked_name(terminated)

    def config(self) -> dict[str, Any]:
        return {"n": self.n, "gamma": self.gamma, "terminated": self.terminated}

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        _check_floating(column)
        _check_terminated(column, self.terminated, columns)
        if column.shape != target.shape or target.dtype.torch.is_complex:
            raise SpecError(
                f"column '{column.name}': shape is {column.shape}, its target '{target.name}' has "
                f"shape {target.shape} and dtype {target.dtype}; declare both of one shape, and "
                "the target of a real dtype",
                column=column.name,
                target_name=target.name,
            )

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        at, counted = _steps_from(windows, self.n)
        marked = None
        if self.terminated is not None and not windows.is_tag(self.terminated):
            marked = _not_zero(windows.gather_at(self.terminated, torch.from_numpy(at)))
            marked = marked.reshape(at.shape)
        rewards = windows.gather_at(column.target_name, torch.from_numpy(at))
        rows = rewards.to(torch.float64).reshape(*at.shape, -1)
        discounts: _Floats = self.gamma ** np.arange(self.n, dtype=np.float64)
        if windows.host:
            sums = torch.from_numpy(_sums(rows.numpy(), discounts, counted, marked))
        else:
            sums = _sums_there(windows, rows, discounts, counted, marked)
        return sums.to(column.dtype.torch).view(-1, *column.shape)


class NStepDiscount(Mapper):
    """For each transition, what multiplies the bootstrap value of its return over n steps.

    gamma to the power of the steps summed, or 0 where the sum meets a true end. The target may be
    any stored column. The column's shape has one element per transition, its dtype is a floating
    point one.

    Args:
        n: steps, at least 1.
        gamma: discount per step, 0 to 1.
        terminated: what tells a true end from a mere cut: the name of a stored column, not 0 on
            the steps that end, or of a tag, not 0 for the sequences whose last transition ends;
            either has one element. None: every sequence comes to a true end.
    """

    def __init__(self, n: int, gamma: float, terminated: str | None = None) -> None:
        self.n = whole_number("n", n, 1)
        self.gamma = _checked_gamma(gamma)
        self.terminated = _checked_name(terminated)

    def config(self) -> dict[str, Any]:
        return {"n": self.n, "gamma": self.gamma, "terminated": self.terminated}

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        _check_floating(column)
        check_one_value(column, "the discount")
        _check_terminated(column, self.terminated, columns)

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        remaining = windows.remaining().numpy()
        discounts = (self.gamma ** np.arange(self.n + 1))[np.minimum(remaining, self.n)]
        if self.terminated is None:
            discounts[remaining <= self.n] = 0.0
            return as_declared(torch.from_numpy(discounts), column)
        if windows.is_tag(self.terminated):
            ended = _not_zero(windows.gather_tags(self.terminated))
            if windows.steps > 1:
                ended = ended.repeat_interleave(windows.steps)
            ended &= windows.bring(remaining <= self.n)
        else:
            # Behind the sequence's end its last step is repeated, which changes no answer.
            at, _ = _steps_from(windows, self.n)
            flags = _not_zero(windows.gather_at(self.terminated, torch.from_numpy(at)))
            ended = flags.reshape(at.shape).any(1)
        return as_declared(windows.bring(discounts).masked_fill_(ended, 0.0), column)


class NStepElementMapper(Mapper):
    """For each transition, the target's element n steps later, or the one its sequence ends with.

    That is the observation a return over n steps is bootstrapped with. The target's sequences
    bring one row more than their length: the element after the last transition. For stacked
    frames see ``ahead`` of :class:`FrameStack`.

    Args:
        n: steps, at least 1.
    """

    look_ahead = 1

    def __init__(self, n: int) -> None:
        self.n = whole_number("n", n, 1)

    def config(self) -> dict[str, Any]:
        return {"n": self.n}

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        check_same_element(column, target)

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        at = windows.positions().add_(self.n)
        return windows.gather_at(column.target_name, at, self.look_ahead)


# In numpy where it can be: on so few numbers, its calls take a fraction of torch's.
def _steps_from(windows: Windows, n: int) -> tuple[Int64Array, BoolArray]:
    """[N, n] each: positions of each step and the n - 1 after it, and which are in the sequence."""
    steps = np.arange(n)
    at = windows.positions().numpy()[:, None] + steps
    return at, steps < windows.remaining().numpy()[:, None]


def _sums(rows: _Floats, discounts: _Floats, counted: BoolArray, marked: Tensor | None) -> _Floats:
    """float64 [N, E] of rewards [N, n, E], of those that count: none after the first marked."""
    if marked is not None:
        flags = marked.numpy()
        # Up to the first marked step, that one included.
        counted = counted & (np.cumsum(flags, 1) - flags == 0)
    if not counted.all():
        rows[~counted] = 0.0
    sums: _Floats = np.einsum("i,nij->nj", discounts, rows)
    return sums


def _sums_there(
    windows: Windows,
    rows: Tensor,
    discounts: _Floats,
    counted: BoolArray,
    marked: Tensor | None,
) -> Tensor:
    """The same where the rows are on a device."""
    left_out = windows.bring(~counted)
    if marked is not None:
        flags = marked.to(torch.int64)
        left_out |= (flags.cumsum(1) - flags) != 0
    rows.masked_fill_(left_out[..., None], 0.0)
    return (rows * windows.bring(discounts)[:, None]).sum(1)


def _not_zero(values: Tensor) -> Tensor:
    """bool [number of elements]; of any real dtype, as not all can be compared as they are."""
    return values.reshape(-1).to(torch.float64) != 0


def _checked_gamma(gamma: Any) -> float:
    if isinstance(gamma, bool) or not isinstance(gamma, (int, float)) or not 0 <= gamma <= 1:
        raise SpecError(f"gamma is {gamma!r}; give a number from 0 to 1", gamma=repr(gamma))
    return float(gamma)


def _checked_name(terminated: Any) -> str | None:
    if terminated is not None and not isinstance(terminated, str):
        raise SpecError(
            f"terminated is {terminated!r}; give the name of a stored column or a tag, or None"
        )
    return terminated


def _check_floating(column: VirtualColumn) -> None:
    if not column.dtype.torch.is_floating_point:
        raise SpecError(
            f"column '{column.name}': dtype is {column.dtype}, but discounted numbers are no "
            "whole ones; declare a floating point dtype",
            column=column.name,
        )


def _check_terminated(
    column: VirtualColumn, terminated: str | None, columns: Mapping[str, Column]
) -> None:
    if terminated is None:
        return
    found = columns.get(terminated)
    if found is None or found.row_bytes != found.dtype.itemsize or found.dtype.torch.is_complex:
        what = f"has shape {found.shape} and dtype {found.dtype}" if found else "is neither"
        raise SpecError(
            f"column '{column.name}': its mapper reads '{terminated}', which {what}; give the name "
            "of a stored column or a tag with a single real element",
            column=column.name,
        )
