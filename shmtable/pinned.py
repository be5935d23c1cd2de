"""Pinned memory that a sample is gathered to, or copied to, and sent from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from shmtable.streams import Streams
from shmtable.types import SampleResult

_ALIGNMENT = 64
# Columns that were gathered side by side are sent together if they make up such a share of what
# was gathered: the rest is sent for nothing.
_SHARE = 0.75


class Slot:
    """Pinned memory for one sample at a time.

    It is as large as the largest sample so far, and so is full of use only from the second on.

    Args:
        streams: of the device.

    Attributes:
        memory: uint8; None before the first sample, and when it was let go.
        event: behind the last copy out of it; None while there is none.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.memory: Tensor | None = None
        self.event: Any = None
        self._gathered: list[Tensor] = []
        self._used = 0

    def wait(self) -> None:
        """Wait until nothing is copied out of it any more: it may be filled again."""
        if self.event is not None:
            self._streams.finish(self.event)
            self.event = None
        self._gathered.clear()
        self._used = 0

    def take(self, size: int) -> npt.NDArray[np.uint8] | None:
        """Memory for a storage to gather to, uint8 [size]; None where there is not enough."""
        if self.memory is None or len(self.memory) < self._used + size:
            return None
        block = self.memory[self._used : self._used + size]
        self._gathered.append(block)
        self._used += _padded(size)
        taken: npt.NDArray[np.uint8] = block.numpy()
        return taken

    def send(self, batch: SampleResult) -> None:
        """Begin to copy a sample to the device: its tensors are replaced by those there."""
        bytes_of: Counter[int | None] = Counter()
        staged = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal staged
            if not self._streams.has(tensor):
                bytes_of[self._block_of(tensor)] += _bytes(tensor)
                staged += _padded(_bytes(tensor))
            return tensor

        change_tensors(batch, count)
        whole = [
            number
            for number, block in enumerate(self._gathered)
            if bytes_of[number] >= _SHARE * len(block)
        ]
        memory, place = self._room(staged)
        sent = {number: self._streams.send(self._gathered[number]) for number in whole}

        def send(tensor: Tensor) -> Tensor:
            nonlocal place
            if self._streams.has(tensor):
                return tensor
            number = self._block_of(tensor)
            if number in sent:
                return _same_place(tensor, self._gathered[number], sent[number])
            part = memory[place : place + _bytes(tensor)].view(tensor.dtype).view(tensor.shape)
            place += _padded(_bytes(tensor))
            return self._streams.send(part.copy_(tensor))

        change_tensors(batch, send)

    def _room(self, size: int) -> tuple[Tensor, int]:
        """Memory for so many bytes beside what was gathered, and where in it they begin."""
        place = self._used
        if self.memory is None or len(self.memory) < place + size:
            # As much as all of it takes: the next sample will find room for it.
            if not self._gathered:
                self.memory = None  # before there is another: pinned memory is dear
            self.memory = self._streams.pinned(place + size)
        return self.memory, place

    def _block_of(self, tensor: Tensor) -> int | None:
        """Which of the pieces that were gathered to this memory a tensor lies in."""
        if tensor.numel() and self._gathered and tensor.device.type == "cpu":
            first = tensor.data_ptr()
            for number, block in enumerate(self._gathered):
                if block.data_ptr() <= first < block.data_ptr() + len(block):
                    return number
        return None


def _same_place(tensor: Tensor, block: Tensor, sent: Tensor) -> Tensor:
    """A part of a block's copy: what ``tensor`` is of the block."""
    size = tensor.element_size()
    values = sent[: len(sent) // size * size].view(tensor.dtype)
    offset = (tensor.data_ptr() - block.data_ptr()) // size
    return values.as_strided(tensor.shape, tensor.stride(), offset)


def change_tensors(batch: SampleResult, change: Callable[[Tensor], Tensor]) -> SampleResult:
    """Put what ``change`` returns in the place of every tensor of a sample; returns the sample."""
    _changed(batch, change)
    for name in ("weights", "sources"):
        tensor = getattr(batch, name, None)
        if isinstance(tensor, Tensor):
            setattr(batch, name, change(tensor))
    return batch


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    # Adaptors may have put dictionaries and lists into a sample.
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        for key, inner in value.items():
            value[key] = _changed(inner, change)
    elif type(value) in (list, tuple):
        return type(value)(_changed(inner, change) for inner in value)
    return value


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
