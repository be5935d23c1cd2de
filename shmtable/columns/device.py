"""Columns in a device's memory: the same rows, written and gathered by the device's own copies.

All regions lie in one piece of memory, so that one handle hands on all of them. What is computed
from places and lengths alone (which windows, masks, positions) is computed by the CPU and sent in
one piece; rows never leave the device, unless for a file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns.backend import Backend
from shmtable.columns.convert import Prepared
from shmtable.columns.groups import Place
from shmtable.columns.runs import each_run, merged
from shmtable.columns.schema import Schema
from shmtable.columns.sending import PART_ALIGNMENT, sent_together
from shmtable.columns.spec import Column
from shmtable.columns.windows import Blocks
from shmtable.types import Int64Array, rows_of

# Regions begin at multiples of it: what the devices' own allocators align to.
_ALIGNMENT = 512
# Views kept per storage, none with memory of its own.
_MAX_VIEWS = 1024
# Fewer runs of rows are copied run by run, more of them row by row in a single operation.
_FEW_RUNS = 64

_WORDS = (torch.int64, torch.int32, torch.int16, torch.uint8)


@dataclass(frozen=True, slots=True)
class _Region:
    """Memory of whole rows: uint8 [rows * stride]; ``names``: the columns in it."""

    memory: Tensor
    stride: int
    names: list[str]


@dataclass(frozen=True, slots=True)
class _Item:
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


class DeviceStorage:
    """The columns of a table in a device's memory; see ``CpuStorage`` for what the methods do.

    Results are on the device, and complete when a call returns. Any number of threads may call.

    Args:
        schema: the table's columns.
        backend: of the device.
        memory: uint8 [device_bytes(schema, rows, slots)] there.
        rows: rows of every stored column.
        slots: slots of every tag column.
        steps_since: as for ``CpuStorage``.
    """

    def __init__(
        self,
        schema: Schema,
        backend: Backend,
        memory: Tensor,
        rows: int,
        slots: int,
        steps_since: Callable[[Int64Array], Int64Array] = np.zeros_like,
    ) -> None:
        self.steps_since = steps_since
        self._backend = backend
        self._regions: list[_Region] = []
        self._items: dict[str, _Item] = {}
        self._views: dict[tuple[Any, ...], Tensor] = {}
        self._batches = threading.local()
        self._tag_names = frozenset(tag.name for tag in schema.tags)
        places, _ = _places(schema, rows, slots)
        numbers: dict[str, int] = {}
        alone = [(tag, Place(tag.name, 0, tag.row_bytes, True)) for tag in schema.tags]
        for column, place in [(c, schema.places[c.name]) for c in schema.stored] + alone:
            if place.region not in numbers:
                numbers[place.region] = len(self._regions)
                part = memory.narrow(0, *places[place.region])
                self._regions.append(_Region(part, place.stride, []))
            self._add(column, numbers[place.region], place)
        self._stored = [column.name for column in schema.stored]
        self._tags = [column.name for column in schema.tags]

    # -- writing -----------------------------------------------------------------------------

    def write(self, start: int, slot: int, prepared: Prepared) -> None:
        """Copy a sequence in: its rows from ``start`` on, its tags to ``slot``.

        Rows of the CPU's go through one piece of staging memory, the device's own are copied on
        the device. All of them are there when this returns, so the sequence may be committed.
        """
        given = dict(zip(self._stored, prepared.rows, strict=True))
        given.update((name, tag[None]) for name, tag in zip(self._tags, prepared.tags, strict=True))
        # Only tensors may still be in the making; nothing else has to wait for the caller's work.
        unfinished = any(isinstance(rows, Tensor) for rows in prepared.rows)
        with self._backend.working(after_caller=unfinished):
            staged: list[tuple[Tensor, list[str], int, int]] = []
            size = 0
            for region in self._regions:
                first = slot if region.names[0] in self._tag_names else start
                here = [name for name in region.names if not isinstance(given[name], Tensor)]
                for name in region.names:
                    if name not in here or len(here) != len(region.names):
                        self._copy_rows(name, first, given[name])
                if len(here) == len(region.names):
                    count = max(len(given[name]) for name in here)
                    target = region.memory[first * region.stride : (first + count) * region.stride]
                    staged.append((target, here, size, count))
                    size += -(-len(target) // PART_ALIGNMENT) * PART_ALIGNMENT
            host = self._backend.staging(size) if staged else torch.empty(0)
            for target, names, offset, count in staged:
                source = host[offset : offset + len(target)]
                for name in names:
                    self._in_block(name, source.numpy(), count)[: len(given[name])] = given[name]
                self._backend.copy(target, source)

    def put(self, name: str, rows: Int64Array, values: npt.NDArray[Any]) -> None:
        """Store single rows of one stored column; where one comes twice, the last counts."""
        # Of equal indices a device may let any win: only the last of each is given.
        found, last = np.unique(rows[::-1], return_index=True)
        kept = np.ascontiguousarray(values[::-1][last])
        target = self._items[name].rows
        with self._backend.working():
            sent = self._send_array(kept.reshape(len(kept), -1).view(np.uint8))
            self._backend.scatter(target, self._send_array(found), sent.view(target.dtype))

    def _copy_rows(self, name: str, start: int, rows: Tensor | npt.NDArray[Any]) -> None:
        """Copy one column's rows by themselves."""
        target = self._items[name].rows[start : start + len(rows)]
        if isinstance(rows, Tensor):
            whole = rows.detach().contiguous().reshape(len(rows), -1)
            self._backend.copy(target, whole.view(target.dtype))
        else:
            whole = self._send_array(np.ascontiguousarray(rows).reshape(len(rows), -1))
            self._backend.copy(target, whole.view(target.dtype))

    def _in_block(self, name: str, block: npt.NDArray[np.uint8], count: int) -> npt.NDArray[Any]:
        """A column's rows in a copy of whole rows: [count, *shape]."""
        item = self._items[name]
        strides = tuple(stride * item.bits.itemsize for stride in item.inner)
        shape = (count, *item.column.shape)
        return np.ndarray(shape, item.bits, block, item.place.offset, (item.place.stride, *strides))

    # -- gathering ---------------------------------------------------------------------------

    def whole(self, gather: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Run what gathers a batch; what it returns is on the device, and has been copied.

        Places are sent once for all columns, and columns that the CPU has computed in one piece.
        """
        with self._batch() as results:
            columns = gather()
            here = [name for name, value in columns.items() if value.device != self.device]
            sent = sent_together([columns[name] for name in here], self._backend)
            columns.update(zip(here, sent, strict=True))
            results += columns.values()
        return columns

    def gather(
        self,
        name: str,
        starts: Int64Array,
        length: int,
        shift: int = 0,
        blocks: Blocks | None = None,
    ) -> Tensor:
        """Copy windows of equal length out of one stored column: [B * L, *shape].

        Within :meth:`whole` it has only begun when it returns.
        """
        with self._batch() as results:
            item = self._items[name]
            if blocks is not None and (name, shift) in blocks:
                blocks = None  # handed out before, and perhaps changed since
            alone = item.place.apart or (blocks is None and length == 1)
            key = item.region, shift
            if alone or blocks is None or key not in blocks:
                view = self._single(name, shift) if alone and length == 1 else None
                if view is None:
                    view = self._view(item.region, length, shift)
                block = self._backend.select(view, self._index(starts)).reshape(-1)
            else:
                block = blocks[key]
            if blocks is not None and not alone:
                blocks[key] = blocks[name, shift] = block
            results.append(block)
            return self._from_block(item, block, len(starts) * length, alone)

    def gather_tags(self, name: str, slots: Int64Array) -> Tensor:
        """Copy one tag per window: [B, *shape]."""
        return self.gather(name, slots, 1)

    def is_tag(self, name: str) -> bool:
        """Whether this column has one value per sequence instead of one per transition."""
        return name in self._tag_names

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Copy ``count`` consecutive rows of one stored column: [count, *shape]."""
        item = self._items[name]
        with self._backend.working() as results:
            rows = torch.empty_like(
                item.rows[start : start + count], memory_format=torch.contiguous_format
            )
            self._backend.copy(rows, item.rows[start : start + count])
            results.append(rows)
        return rows.view(item.column.dtype.torch).view(count, *item.column.shape)

    def read_tag(self, name: str, slot: int) -> Tensor:
        """Copy the tag of one slot: [*shape]."""
        return self.read(name, slot, 1)[0]

    @property
    def device(self) -> torch.device:
        """Where the columns are."""
        return self._backend.device

    @contextmanager
    def _batch(self) -> Iterator[list[Tensor]]:
        """The batch that is being gathered, or else one for a single column."""
        if getattr(self._batches, "sent", None) is not None:
            yield []  # the batch knows what it returns
            return
        self._batches.sent = {}
        try:
            with self._backend.working() as results:
                yield results
        finally:
            self._batches.sent = None

    def _index(self, places: Int64Array) -> Tensor:
        """int64 [B] on the device; what has been sent in this batch is not sent again."""
        # By where it lies: slices and reshapes of one array are objects of their own. The array
        # is kept, so that nothing else comes to lie there.
        key = places.__array_interface__["data"][0], places.shape, places.strides
        found = self._batches.sent.get(key)
        if found is None:
            found = self._batches.sent[key] = places, self._send_array(places)
        index: Tensor = found[1]
        return index

    def _send_array(self, array: npt.NDArray[Any]) -> Tensor:
        """A copy on the device, of the same shape, as integers or bytes."""
        host = self._backend.staging(array.nbytes)
        np.copyto(host.numpy().view(array.dtype).reshape(array.shape), array)
        sent = self._backend.send(host)
        if array.dtype == np.int64:
            return sent.view(torch.int64).view(array.shape)
        return sent.view(len(array), -1)

    @staticmethod
    def _from_block(item: _Item, block: Tensor, count: int, alone: bool) -> Tensor:
        """A column's rows in copies of whole rows, or of its own alone."""
        column = item.column
        values = block.view(column.dtype.torch)
        if alone:
            return values.view(count, *column.shape)
        size = column.dtype.itemsize
        strides = (item.place.stride // size, *item.inner)
        return values.as_strided((count, *column.shape), strides, item.place.offset // size)

    # -- rows as plain bytes, for files --------------------------------------------------------

    def bytes_of(self, name: str, starts: Int64Array, counts: Int64Array) -> list[memoryview]:
        """The bytes of many runs of rows, one after the other, to be read: a copy."""
        starts, counts = merged(starts, counts)
        rows = self._items[name].rows
        total = int(counts.sum())
        with self._backend.working():
            host = self._backend.staging(total * rows.shape[1] * rows.element_size())
            target = host.view(rows.dtype).view(total, rows.shape[1])
            if len(starts) <= _FEW_RUNS:
                for place, run in each_run(starts, counts):
                    self._backend.copy(target[place], rows[run])
            else:
                index = self._send_array(rows_of(starts, counts))
                self._backend.copy(target, self._backend.select(rows, index))
        return [host.numpy().data]

    @contextmanager
    def filling(
        self, name: str, starts: Int64Array, counts: Int64Array
    ) -> Iterator[list[memoryview]]:
        """Memory to write the bytes of many runs of rows to; see ``CpuStorage.filling``."""
        starts, counts = merged(starts, counts)
        rows = self._items[name].rows
        total = int(counts.sum())
        host = self._backend.staging(total * rows.shape[1] * rows.element_size())
        yield [host.numpy().data]
        with self._backend.working():
            source = host.view(rows.dtype).view(total, rows.shape[1])
            if len(starts) <= _FEW_RUNS:
                for place, run in each_run(starts, counts):
                    self._backend.copy(rows[run], source[place])
            else:
                index = self._send_array(rows_of(starts, counts))
                sent = self._backend.send(host).view(rows.dtype).view(total, rows.shape[1])
                self._backend.scatter(rows, index, sent)

    # -- views ---------------------------------------------------------------------------------

    def _view(self, region: int, length: int, shift: int) -> Tensor:
        """Windows of whole rows: every start's, overlapping, as integers [starts, words]."""
        key = (region, length, shift)
        view = self._views.get(key)
        if view is None:
            stride = self._regions[region].stride
            view = self._keep(key, region, shift * stride, length * stride)
        return view

    def _single(self, name: str, shift: int) -> Tensor:
        """Single rows of one column, without what lies beside it."""
        view = self._views.get((name, shift))
        if view is None:
            item = self._items[name]
            first_byte = item.place.offset + shift * item.place.stride
            view = self._keep((name, shift), item.region, first_byte, item.column.row_bytes)
        return view

    def _keep(self, key: tuple[Any, ...], region: int, first_byte: int, size: int) -> Tensor:
        if len(self._views) >= _MAX_VIEWS:
            self._views.clear()
        word = _word(self._regions[region].stride | first_byte | size)
        view = self._views[key] = self._strided(region, first_byte, size, word)
        return view

    def _strided(self, region: int, first_byte: int, size: int, word: torch.dtype) -> Tensor:
        """``size`` bytes from each row's start on, as integers [rows, words]."""
        memory, stride = self._regions[region].memory, self._regions[region].stride
        count = (len(memory) - first_byte - size) // stride + 1
        words, step = memory.view(word), word.itemsize
        return words.as_strided(
            (count, size // step), (stride // step, 1), words.storage_offset() + first_byte // step
        )

    def _add(self, column: Column, region: int, place: Place) -> None:
        self._regions[region].names.append(column.name)
        # No wider than an element: any tensor of the column's dtype can be seen as such integers.
        word = _word(column.dtype.itemsize)
        sizes = np.cumprod((1, *column.shape[:0:-1]))[::-1].tolist() if column.shape else []
        rows = self._strided(region, place.offset, column.row_bytes, word)
        bits = column.dtype.numpy
        self._items[column.name] = _Item(column, region, place, rows, tuple(sizes), bits)


def _word(bytes_: int) -> torch.dtype:
    """The widest integers that places and sizes, or-ed together, are multiples of."""
    return next(word for word in _WORDS if not bytes_ % word.itemsize)
