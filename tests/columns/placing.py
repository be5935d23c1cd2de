"""Sequences placed in private memory, and the plain Python answer to what windows hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns import Converter, CpuStorage, Schema, Windows

GAP_ROWS = 2  # between sequences, so that a read past one meets filler


class Placed:
    """A storage with some sequences in it; whatever they do not cover is ``filler`` bytes."""

    def __init__(
        self, schema: Schema, sequences: Sequence[Mapping[str, Any]], filler: int = 0
    ) -> None:
        self.schema = schema
        self.sequences = sequences
        converter = Converter(schema, maxlen=1_000_000)
        prepared = [converter.prepare(sequence) for sequence in sequences]
        spans = [one.span + GAP_ROWS for one in prepared]
        self.starts = np.cumsum([GAP_ROWS, *spans])[:-1]
        self.lengths = np.array([one.length for one in prepared])
        rows, slots = GAP_ROWS + sum(spans), len(sequences) + 1
        rows_of = {
            name: torch.full((rows * size,), filler, dtype=torch.uint8)
            for name, size in schema.regions.items()
        }
        tags_of = {
            column.name: torch.full((slots * column.row_bytes,), filler, dtype=torch.uint8)
            for column in schema.tags
        }
        self.regions = rows_of | tags_of
        self.storage = CpuStorage(schema, rows_of, tags_of, self.steps_since)
        for slot, one in enumerate(prepared):
            self.storage.write(int(self.starts[slot]), slot, one)

    def steps_since(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """As if the sequences had been added in order, and nothing after the last."""
        return np.cumsum(self.lengths)[-1] - np.cumsum(self.lengths)[slots]

    def places(self, steps: int, clamp: bool) -> list[tuple[int, int]]:
        """(slot, offset) of every window of ``steps``; with ``clamp`` from each transition on."""
        return [
            (slot, offset)
            for slot, length in enumerate(self.lengths)
            for offset in range(length if clamp else length - steps + 1)
        ]

    def windows(self, places: list[tuple[int, int]], steps: int, clamp: bool = False) -> Windows:
        """The windows of ``steps`` at these (slot, offset)."""
        slots, offsets = np.array(places, dtype=np.int64).reshape(-1, 2).T
        starts = self.starts[slots] + offsets
        return Windows(self.storage, slots, starts, offsets, self.lengths[slots], steps, clamp)

    def expected(
        self, name: str, places: list[tuple[int, int]], steps: int, shift: int = 0
    ) -> npt.NDArray[Any]:
        """[B, L, *shape], row by row: the sequence's own rows, its last transition repeated."""
        return np.array(
            [
                [
                    self.sequences[slot][name][min(offset + step, self.lengths[slot] - 1) + shift]
                    for step in range(steps)
                ]
                for slot, offset in places
            ]
        )


def bits(value: Tensor) -> Tensor:
    """The bytes of a tensor: what round trips must keep, NaN and signed zero included."""
    return value.contiguous().reshape(-1).view(torch.uint8)
