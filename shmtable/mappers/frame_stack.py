"""The last few frames as one observation, each frame stored once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shmtable.columns import Column, VirtualColumn, Windows
from shmtable.errors import SpecError
from shmtable.mappers.base import Mapper, whole_number, zero_rows


class FrameStack(Mapper):
    """For each transition, its frame and the ones before it, oldest first.

    The column's shape is ``(n, *frame)``, or, with the first two axes in one, ``(n * c, h, w)``
    for frames of ``(c, h, w)``: what stacks along a new axis and what concatenates along the
    channels give. Its dtype is the frames'.

    No frame of another sequence is ever in a stack: before a sequence's first frame stands
    padding.

    Args:
        n: frames in a stack, at least 1.
        pad: what stands before the first frame: "zero", or "edge", the first frame itself.
        ahead: give the stack so many steps later, the last frame being the one behind the last
            transition at most. 1 is the next observation's, and k what a return over k steps is
            bootstrapped with. If it is not 0, sequences bring one row more of the target than
            their length.
    """

    def __init__(self, n: int, pad: str = "zero", ahead: int = 0) -> None:
        self.n = whole_number("n", n, 1)
        if pad not in ("zero", "edge"):
            raise SpecError(f"pad is {pad!r}; give 'zero' or 'edge'")
        self.pad = pad
        self.ahead = whole_number("ahead", ahead, 0)
        self.look_ahead = min(ahead, 1)

    def config(self) -> dict[str, Any]:
        return {"n": self.n, "pad": self.pad, "ahead": self.ahead}

    def check(self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]) -> None:
        shapes = [(self.n, *target.shape)]
        if target.shape:
            shapes.append((self.n * target.shape[0], *target.shape[1:]))
        if column.shape not in shapes or column.dtype != target.dtype:
            raise SpecError(
                f"column '{column.name}': shape {column.shape} and dtype {column.dtype} are not "
                f"those of {self.n} frames of '{target.name}', {target.shape} and "
                f"{target.dtype}; declare shape={' or '.join(map(str, shapes))} and that dtype",
                column=column.name,
                target_name=target.name,
            )

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor:
        # In numpy: on this few numbers, its calls take a fraction of torch's.
        last = windows.positions().numpy()
        if self.ahead:
            last = last + np.minimum(windows.remaining().numpy(), self.ahead)
        at = last[:, None] + np.arange(1 - self.n, 1)
        frames = windows.gather_at(column.target_name, torch.from_numpy(at), self.look_ahead)
        if self.pad == "zero":
            zero_rows(windows, frames, at < 0)
        return frames.view(-1, *column.shape)
