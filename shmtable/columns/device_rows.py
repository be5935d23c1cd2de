"""Where a table's columns lie in one piece of a device's memory, and views of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shmtable.columns.groups import Place
from shmtable.columns.schema import Schema
from shmtable.columns.spec import Column

# Regions begin at multiples of it: what the devices' own allocators align to.
_ALIGNMENT = 512
# Views kept per storage, none with memory of its own.
_MAX_VIEWS = 1024

_WORDS = (torch.int64, torch.int32, torch.int16, torch.uint8)


@dataclass(frozen=True, slots=True)
class Region:
    """Memory of whole rows: uint8 [rows * stride]; ``names``: the columns in it."""

    memory: Tensor
    stride: int
    names: list[str]


@dataclass(frozen=True, slots=True)
class Item:
    """A column's part of a row.

    ``rows``: all of them as integers [rows, words], to be written. ``inner``: strides of one
    row's elements, in elements. ``bits``: numpy dtype of what is stored.
    """

    column: Column
    region: int
    place: Place
    rows: Tensor
    inner: tuple[int, ...]
    bits: np.dtype[Any]


def device_bytes(schema: Schema, rows: int, slots: int) -> int:
    """The memory that the columns take: so many rows, and so many slots' tags."""
    return _places(schema, rows, slots)[1]


def _places(schema: Schema, rows: int, slots: int) -> tuple[dict[str, tuple[int, int]], int]:
    """By region, (first byte, bytes), and the bytes of all."""
    sizes = {name: rows * stride for name, stride in schema.regions.items()}
    sizes.update({tag.name: slots * tag.row_bytes for tag in schema.tags})
    places, end = {}, 0
    for name, size in sizes.items():
        places[name] = end, size
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return places, end


class DeviceRows:
    """The regions and columns of a storage, all of them views of its memory.

    Args:
        schema: the table's columns.
        memory: uint8 [device_bytes(schema, rows, slots)].
        rows: rows of every stored column.
        slots: slots of every tag column.

    Attributes:
        regions: all of them; an item's ``region`` is a number here.
        items: by name, every stored column and tag.
    """

    def __init__(self, schema: Schema, memory: Tensor, rows: int, slots: int) -> None:
        self.regions: list[Region] = []
        self.items: dict[str, Item] = {}
        self._views: dict[tuple[Any, ...], Tensor] = {}
        places, _ = _places(schema, rows, slots)
        numbers: dict[str, int] = {}
        alone = [(tag, Place(tag.name, 0, tag.row_bytes, True)) for tag in schema.tags]
        for column, place in [(c, schema.places[c.name]) for c in schema.stored] + alone:
            if place.region not in numbers:
                numbers[place.region] = len(self.regions)
                part = memory.narrow(0, *places[place.region])
                self.regions.append(Region(part, place.stride, []))
            self._add(column, numbers[place.region], place)

    def let_go(self) -> None:
        """Keep nothing of the memory: it goes when nobody else has it."""
        self.regions.clear()
        self.items.clear()
        self._views.clear()

    def windows(self, region: int, length: int, shift: int) -> Tensor:
        """Windows of whole rows: every start's, overlapping, as integers [starts, words]."""
        key = (region, length, shift)
        view = self._views.get(key)
        if view is None:
            stride = self.regions[region].stride
            view = self._keep(key, region, shift * stride, length * stride)
        return view

    def single(self, name: str, shift: int) -> Tensor:
        """Single rows of one column, without what lies beside it."""
        view = self._views.get((name, shift))
        if view is None:
            item = self.items[name]
            first_byte = item.place.offset + shift * item.place.stride
            view = self._keep((name, shift), item.region, first_byte, item.column.row_bytes)
        return view

    def _keep(self, key: tuple[Any, ...], region: int, first_byte: int, size: int) -> Tensor:
        if len(self._views) >= _MAX_VIEWS:
            self._views.clear()
        word = _word(self.regions[region].stride | first_byte | size)
        view = self._views[key] = self._strided(region, first_byte, size, word)
        return view

    def _strided(self, region: int, first_byte: int, size: int, word: torch.dtype) -> Tensor:
        """``size`` bytes from each row's start on, as integers [rows, words]."""
        memory, stride = self.regions[region].memory, self.regions[region].stride
        count = (len(memory) - first_byte - size) // stride + 1
        words, step = memory.view(word), word.itemsize
        return words.as_strided(
            (count, size // step), (stride // step, 1), words.storage_offset() + first_byte // step
        )

    def _add(self, column: Column, region: int, place: Place) -> None:
        self.regions[region].names.append(column.name)
        # No wider than an element: any tensor of the column's dtype can be seen as such integers.
        word = _word(column.dtype.itemsize)
        sizes = np.cumprod((1, *column.shape[:0:-1]))[::-1].tolist() if column.shape else []
        rows = self._strided(region, place.offset, column.row_bytes, word)
        bits = column.dtype.numpy
        self.items[column.name] = Item(column, region, place, rows, tuple(sizes), bits)


def _word(bytes_: int) -> torch.dtype:
    """The widest integers that places and sizes, or-ed together, are multiples of."""
    return next(word for word in _WORDS if not bytes_ % word.itemsize)
