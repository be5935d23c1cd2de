"""The mask at the end of a sequence, told by a tag."""

from __future__ import annotations

import torch

from shmtable.adaptors.base import check_key, columns_of
from shmtable.errors import SpecError
from shmtable.types import SampleResult


class TerminalAdaptor:
    """Where a mask says that the sequence ends (it is not 1), puts the sequence's tag instead.

    A mask from :meth:`SyntheticDones.as_mask` is 0 on every last transition. With a tag that is
    1 for sequences cut off by a time limit and 0 for those that came to a true end, values are
    bootstrapped through the first and not through the second.

    Args:
        target_key: the mask column, one value per transition; floating point masks keep their
            dtype.
        value_key: the tag column, one value per window (of a column with one per transition,
            the window's last counts).

    Raises:
        SpecError: keys that are no strings.
    """

    def __init__(self, target_key: str, value_key: str) -> None:
        self.target_key = check_key("target_key", target_key)
        self.value_key = check_key("value_key", value_key)

    def __call__(self, result: SampleResult, count: int, sequence_length: int) -> SampleResult:
        target, value = columns_of(self, result, (self.target_key, self.value_key))
        steps = count * sequence_length
        if target.numel() != steps or value.numel() not in (count, steps):
            raise SpecError(
                f"TerminalAdaptor: '{self.target_key}' has shape {tuple(target.shape)} and "
                f"'{self.value_key}' {tuple(value.shape)} for {count} windows of "
                f"{sequence_length} steps; give a mask with one value per step and a tag with "
                "one value per window",
                target_key=self.target_key,
                value_key=self.value_key,
            )
        if target.is_floating_point():
            value = value.to(target.dtype)
        mask = target.reshape(count, sequence_length)
        last = value.reshape(count, -1)[:, -1:]
        result[self.target_key] = torch.where(mask == 1, mask, last).reshape(target.shape)
        return result
