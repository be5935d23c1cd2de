"""Columns in a device's memory: the same rows, written and gathered by the device's own copies.

All regions lie in one piece of memory, so that one handle hands on all of them. What is computed
from places and lengths alone (which windows, masks, positions) is computed by the CPU and sent in
one piece; rows never leave the device, unless for a file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns.backend import Backend
from shmtable.columns.convert import Prepared
from shmtable.columns.device_rows import DeviceRows, Item
from shmtable.columns.runs import each_run, merged
from shmtable.columns.schema import Schema
from shmtable.columns.sending import PART_ALIGNMENT, sent_together
from shmtable.types import Int64Array, rows_of

# Fewer runs of rows are copied run by run, more of them row by row in a single operation.
_FEW_RUNS = 64


class DeviceStorage:
    """The columns of a table in a device's memory; see ``CpuStorage`` for what the methods do.

    Results are on the device, and complete when a call returns. Any number of threads may call.

    Attributes:
        steps_since: as given.
        host: False: what is gathered is not for the CPU to compute with.

    Args:
        schema: the table's columns.
        backend: of the device.
        memory: uint8 [device_bytes(schema, rows, slots)] there.
        rows: rows of every stored column.
        slots: slots of every tag column.
        steps_since: as for ``CpuStorage``.
    """

    host = False

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
        self._batches = threading.local()
        self._tag_names = frozenset(tag.name for tag in schema.tags)
        self._laid = DeviceRows(schema, memory, rows, slots)
        self._copied_from = schema.copied
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
            for region in self._laid.regions:
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
            host = self._backend.staging(size)
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
        target = self._laid.items[name].rows
        with self._backend.working():
            sent = self._send_array(kept.reshape(len(kept), -1).view(np.uint8))
            self._backend.scatter(target, self._send_array(found), sent.view(target.dtype))

    def _copy_rows(self, name: str, start: int, rows: Tensor | npt.NDArray[Any]) -> None:
        """Copy one column's rows by themselves."""
        target = self._laid.items[name].rows[start : start + len(rows)]
        if isinstance(rows, Tensor):
            whole = rows.detach().contiguous().reshape(len(rows), -1)
            self._backend.copy(target, whole.view(target.dtype))
        else:
            whole = self._send_array(np.ascontiguousarray(rows).reshape(len(rows), -1))
            self._backend.copy(target, whole.view(target.dtype))

    def _in_block(self, name: str, block: npt.NDArray[np.uint8], count: int) -> npt.NDArray[Any]:
        """A column's rows in a copy of whole rows: [count, *shape]."""
        item = self._laid.items[name]
        strides = tuple(stride * item.bits.itemsize for stride in item.inner)
        shape = (count, *item.column.shape)
        return np.ndarray(shape, item.bits, block, item.place.offset, (item.place.stride, *strides))

    # -- gathering ---------------------------------------------------------------------------

    def whole(
        self, gather: Callable[[], dict[str, Tensor]], places: Sequence[Int64Array] = ()
    ) -> dict[str, Tensor]:
        """Run what gathers a batch; what it returns is on the device, and has been copied.

        Two transfers go there, however many columns there are: at first of the places, and at
        last of what the CPU has computed.

        Args:
            gather: calls :meth:`gather` and so on.
            places: int64 [n] each, what it gathers by, as far as that is known.
        """
        with self._batch() as results:
            self._send_places(places)
            columns = gather()
            here = [name for name, value in columns.items() if not self._backend.has(value)]
            sent = sent_together([columns[name] for name in here], self._backend)
            columns.update(zip(here, sent, strict=True))
            results += columns.values()
        return columns

    def gather_copied(self, starts: Int64Array, length: int, found: dict[str, Tensor]) -> None:
        """Copy windows out of all columns that are rows as they are; see ``CpuStorage``."""
        with self._batch() as results:
            blocks: dict[tuple[int, int], Tensor] = {}
            for name, (stored, shift) in self._copied_from.items():
                item = self._laid.items[stored]
                block = blocks.get((item.region, shift))
                if block is None:
                    view = self._laid.windows(item.region, length, shift)
                    block = blocks[item.region, shift] = self._selected(view, starts)
                found[name] = self._from_block(item, block, len(starts) * length)
            results += blocks.values()

    def gather(self, name: str, starts: Int64Array, length: int, shift: int = 0) -> Tensor:
        """Copy windows of equal length out of one stored column: [B * L, *shape].

        Within :meth:`whole` it has only begun when it returns.
        """
        item = self._laid.items[name]
        with self._batch() as results:
            if length == 1 and not item.place.apart:
                block = self._selected(self._laid.single(name, shift), starts)
                values = block.view(item.column.dtype.torch).view(len(starts), *item.column.shape)
            else:
                block = self._selected(self._laid.windows(item.region, length, shift), starts)
                values = self._from_block(item, block, len(starts) * length)
            results.append(values)
        return values

    def gather_tags(self, name: str, slots: Int64Array) -> Tensor:
        """Copy one tag per window: [B, *shape]."""
        return self.gather(name, slots, 1)

    def is_tag(self, name: str) -> bool:
        """Whether this column has one value per sequence instead of one per transition."""
        return name in self._tag_names

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Copy ``count`` consecutive rows of one stored column: [count, *shape]."""
        item = self._laid.items[name]
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

    def _send_places(self, places: Sequence[Int64Array]) -> None:
        """Send arrays in one piece, for :meth:`_index` to find."""
        if not places:
            return
        host = self._backend.staging(sum(array.nbytes for array in places))
        np.concatenate(places, out=host.numpy().view(np.int64))
        sent, first = self._backend.send(host).view(torch.int64), 0
        for array in places:
            # Seen as positive, those below zero are the largest.
            highest = int(array.view(np.uint64).max(initial=0))
            index = sent[first : first + len(array)]
            first += len(array)
            # By the object, which is kept: nothing else comes to have its number.
            self._batches.sent[id(array)] = array, index, highest

    def _index(self, places: Int64Array, count: int) -> Tensor:
        """int64 [B] on the device; what has been sent in this batch is not sent again.

        Raises:
            IndexError: not all are less than ``count``. Told by the device itself, that would be
                the end of all this process has there.
        """
        found = self._batches.sent.get(id(places))
        if found is None:
            self._send_places([places])
            found = self._batches.sent[id(places)]
        _, index, highest = found
        if highest >= count:
            raise IndexError(f"row {highest} of {count}")
        sent: Tensor = index
        return sent

    def bring(self, values: npt.NDArray[Any]) -> Tensor:
        """A copy on the device of what the CPU has computed."""
        with self._batch() as results:
            (sent,) = sent_together([torch.from_numpy(values)], self._backend)
            results.append(sent)
        return sent

    def replace(self, pairs: Sequence[tuple[Tensor, Tensor]], places: Int64Array) -> None:
        """Put windows gathered later in the places of others; see ``CpuStorage``."""
        with self._backend.working():
            index = self._send_array(places)
            for target, values in pairs:
                self._backend.scatter(target, index, values)

    def let_go(self) -> None:
        """Keep nothing of the memory: this process is about to end."""
        self._laid.let_go()

    def _send_array(self, array: npt.NDArray[Any]) -> Tensor:
        """A copy on the device, of the same shape, as integers or bytes."""
        host = self._backend.staging(array.nbytes)
        np.copyto(host.numpy().view(array.dtype).reshape(array.shape), array)
        sent = self._backend.send(host)
        if array.dtype == np.int64:
            return sent.view(torch.int64).view(array.shape)
        return sent.view(len(array), -1)

    def _selected(self, view: Tensor, starts: Int64Array) -> Tensor:
        """Those of the view's rows, one after the other: [elements]."""
        return self._backend.select(view, self._index(starts, view.shape[0])).reshape(-1)

    @staticmethod
    def _from_block(item: Item, block: Tensor, count: int) -> Tensor:
        """A column's rows in copies of whole rows: [count, *shape]."""
        column = item.column
        values = block.view(column.dtype.torch)
        if item.place.apart:
            return values.view(count, *column.shape)
        size = column.dtype.itemsize
        strides = (item.place.stride // size, *item.inner)
        return values.as_strided((count, *column.shape), strides, item.place.offset // size)

    # -- rows as plain bytes, for files --------------------------------------------------------

    def bytes_of(self, name: str, starts: Int64Array, counts: Int64Array) -> list[memoryview]:
        """The bytes of many runs of rows, one after the other, to be read: a copy."""
        starts, counts = merged(starts, counts)
        rows = self._laid.items[name].rows
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
        rows = self._laid.items[name].rows
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
