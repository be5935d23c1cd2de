"""The index's regions as typed views of the arena."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shmtable.index import fields as f
from shmtable.index.layout import Layout
from shmtable.types import Int64Array


class Arrays:
    """Views of one arena's index, made once per process.

    Plain loads and stores of single numbers go through the memoryviews (``*_words``), which is
    several times faster than through numpy scalars; whole vectors go through the arrays.
    """

    def __init__(self, memory: torch.Tensor, words: memoryview, layout: Layout) -> None:
        self._bytes: npt.NDArray[np.uint8] = memory.numpy()
        self._layout = layout
        self.words = words
        self.slots: Int64Array = self.array("slots", np.int64).reshape(-1, f.SLOT_WORDS)
        self.notes: Int64Array = self.array("notes", np.int64).reshape(-1, f.SLOT_WORDS)
        self.generations: Int64Array = self.slots[:, f.GENERATION]
        # By itself, since every sample adds to it: eight slots share a cache line.
        self.times_sampled: Int64Array = self.array("times_sampled", np.int64)
        self.links: Int64Array = self.array("links", np.int64).reshape(-1, f.LINK_WORDS)
        self.live: Int64Array = self.array("live", np.int64)
        self.free: Int64Array = self.array("free", np.int64)
        self.row_slot: npt.NDArray[np.int32] = self.array("row_slot", np.int32)
        self.slot_words = _words(self.array("slots", np.int64))
        self.note_words = _words(self.array("notes", np.int64))
        self.times_sampled_words = _words(self.times_sampled)
        self.link_words = _words(self.array("links", np.int64))
        self.live_words = _words(self.live)
        self.free_words = _words(self.free)
        self.bucket_words = _words(self.array("buckets", np.int64))
        self.attachment_words = _words(self.array("attachments", np.int64))
        self.bin_words = _words(self.array("bins", np.uint64))

    def array(self, name: str, dtype: Any) -> npt.NDArray[Any]:
        """The region ``name`` as a flat array; mostly unreserved, so touch only what is."""
        region = self._layout.regions[name]
        return self._bytes[region.offset : region.offset + region.bytes].view(dtype)

    def in_state(self, *states: int) -> Int64Array:
        """int64 [n], the slots in one of these states, ascending."""
        found = self.slots[: self.words[f.SLOT_HIGH], f.STATE]
        return np.flatnonzero(np.isin(found, states))


def _words(array: npt.NDArray[Any]) -> memoryview:
    return array.data
