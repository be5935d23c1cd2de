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
        if column.shape != target.shape:
            raise SpecError(
                f"column '{column.name}': shape is {column.shape}, that of its target "
                f"'{target.name}' {target.shape}; declare both alike",
                column=column.name,
                target_name=target.name,
            )

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        steps = torch.arange(self.n)
        at = windows.positions()[:, None] + steps
        counted = steps < windows.remaining()[:, None]
        if self.terminated is not None and not windows.is_tag(self.terminated):
            counted &= ~_ended_before(_flags(windows, self.terminated, at))
        # Rows of one reward each, so that the steps are the last axis.
        rewards = windows.gather_at(column.target_name, at).to(torch.float64)
        rewards = rewards.view(*at.shape, -1).transpose(1, 2)
        rewards = rewards.where(counted[:, None], 0.0)
        sums = rewards @ (self.gamma ** steps.to(torch.float64))
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
        remaining = windows.remaining()
        discounts = self.gamma ** remaining.clamp(max=self.n).to(torch.float64)
        if self.terminated is None or windows.is_tag(self.terminated):
            ended = remaining <= self.n
            if self.terminated is not None:
                tags = windows.gather_tags(self.terminated).view(-1) != 0
                ended &= tags.repeat_interleave(windows.steps)
        else:
            # Past the sequence's end its last step is repeated, which changes no answer.
            at = windows.positions()[:, None] + torch.arange(self.n)
            ended = _flags(windows, self.terminated, at).any(1)
        return as_declared(discounts.masked_fill_(ended, 0.0), column)


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


def _flags(windows: Windows, name: str, at: Tensor) -> Tensor:
    """bool, like ``at``: where a stored column of one element is not 0."""
    return windows.gather_at(name, at).view(at.shape) != 0


def _ended_before(flags: Tensor) -> Tensor:
    """bool [N, n]: whether an earlier step of the row is marked."""
    return flags.cumsum(1) > flags.to(torch.int64)


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
    if found is None or found.row_bytes != found.dtype.itemsize:
        shape = f" has shape {found.shape}" if found else " is no stored column and no tag"
        raise SpecError(
            f"column '{column.name}': its mapper reads '{terminated}', which{shape}; give the "
            "name of one with a single element",
            column=column.name,
        )
