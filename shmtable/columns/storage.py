"""Columns in CPU memory: writes a sequence's rows, gathers windows of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns.convert import Prepared
from shmtable.columns.cpu_rows import Item, Together, View, taking
from shmtable.columns.groups import Place
from shmtable.columns.runs import each_run, merged
from shmtable.columns.schema import Schema
from shmtable.columns.spec import Column
from shmtable.types import Int64Array, rows_of

# Up to this size numpy copies, in this thread alone. Its call is the cheaper one, and waking
# torch's other threads costs more than they save: milliseconds where actors keep every core busy.
# Larger results are shared between torch's threads, where it has more than one; numpy's memory for
# them comes in huge pages (from this very size on), which saves most of the page faults.
_ALONE_BYTES = 2**22

# Views kept per storage, none with memory of its own; more would be lengths that never recur.
_MAX_VIEWS = 1024

# Below so many bytes each, copying runs of rows together is quicker than handing out each run.
_SHORT_BYTES = 2048

_WORDS = (np.dtype("i8"), np.dtype("i4"), np.dtype("i2"), np.dtype("u1"))


_Key = tuple[int, int, int] | tuple[str, int]


class CpuStorage:
    """The columns of a table in one process's address space.

    Args:
        schema: the table's columns.
        rows: for each of the schema's regions all of it, uint8, aligned to 64 bytes, a multiple
            of a row's bytes there. Most of it may be unreserved: nothing but the rows asked for
            is ever touched.
        tags: likewise for each tag column, one row per slot.
        steps_since: for slots (int64 [B]), how many transitions were added to the table after
            their sequences: int64 [B].
    """

    def __init__(
        self,
        schema: Schema,
        rows: dict[str, Tensor],
        tags: dict[str, Tensor],
        steps_since: Callable[[Int64Array], Int64Array] = np.zeros_like,
    ) -> None:
        self.steps_since = steps_since
        self.host = True
        self._into = threading.local()
        self._tag_names = frozenset(tags)
        self._regions: list[Tensor] = []
        self._strides: dict[int, int] = {}
        self._items: dict[str, Item] = {}
        numbers: dict[str, int] = {}
        for column in schema.stored:
            place = schema.places[column.name]
            if place.region not in numbers:
                numbers[place.region] = len(self._regions)
                self._regions.append(rows[place.region])
            self._add(column, numbers[place.region], place)
        for column in schema.tags:
            self._regions.append(tags[column.name])
            place = Place(column.name, 0, column.row_bytes, True)
            self._add(column, len(self._regions) - 1, place)
        self._row_arrays = [self._items[column.name].rows for column in schema.stored]
        self._tag_arrays = [self._items[column.name].rows for column in schema.tags]
        # By region and length of window; by column, of single rows of a column among others.
        self._views: dict[_Key, View] = {}
        self._copied_from = schema.copied
        # How all of those are copied, by number and length of the windows.
        self._plans: dict[tuple[int, int], list[Together]] = {}

    def write(self, start: int, slot: int, prepared: Prepared) -> None:
        """Copy a sequence in: its rows from ``start`` on, its tags to ``slot``."""
        for array, rows in zip(self._row_arrays, prepared.rows, strict=True):
            array[start : start + len(rows)] = rows
        for array, tag in zip(self._tag_arrays, prepared.tags, strict=True):
            array[slot] = tag

    @contextmanager
    def gathering_into(self, take: Callable[[int], npt.NDArray[np.uint8] | None]) -> Iterator[None]:
        """Have this thread's large copies of rows lie where somebody wants them.

        Args:
            take: uint8 [n] of memory to copy to, aligned to 64 bytes; None leaves it to us. What
                is gathered there is the caller's only until that memory is used for something
                else.
        """
        self._into.take = take
        try:
            yield
        finally:
            self._into.take = None

    def put(self, name: str, rows: Int64Array, values: npt.NDArray[Any]) -> None:
        """Store single rows of one stored column, in order: where one comes twice, the last counts.

        Args:
            name: the column.
            rows: int64 [n].
            values: [n, *shape], of the column's storage dtype.
        """
        self._items[name].rows[rows] = values

    def gather_copied(self, starts: Int64Array, length: int, found: dict[str, Tensor]) -> None:
        """Copy windows of equal length out of all columns that are rows as they are.

        Those that lie side by side are copied together, and are views of that copy.

        Args:
            starts: int64 [B], first row of each window; as for :meth:`gather`.
            length: rows per window (L), at least 1.
            found: gets all of ``Schema.copied``: [B * L, *shape] each, of which nothing else has
                the same elements.
        """
        plan = self._plans.get((len(starts), length)) or self._new_plan(len(starts), length)
        for together in plan:
            take = together.take
            block = self._copied(together.view, starts) if take is None else take(starts)
            rows = np.ndarray(together.rows, together.row, block)
            for name, recast in together.columns:
                column = torch.from_numpy(rows[name])
                found[name] = column if recast is None else column.view(recast)

    def gather(self, name: str, starts: Int64Array, length: int, shift: int = 0) -> Tensor:
        """Copy windows of equal length out of one stored column.

        Args:
            name: the column.
            starts: int64 [B], first row of each window;
                0 <= start and start + shift + length <= rows.
            length: rows per window (L), at least 1.
            shift: rows added to every start, at least 0.

        Returns:
            [B * L, *shape] in the column's dtype; always a copy, of which nothing else has the
            same elements. Its rows may lie apart from each other.
        """
        item = self._items[name]
        shape = (len(starts) * length, *item.shape)
        if length == 1 and not item.place.apart:
            view = self._views.get((name, shift)) or self._new_single(name, shift)
            rows = np.ndarray(shape, item.dtype, self._copied(view, starts))
        else:
            block = self._copied(self._view(item.region, length, shift), starts)
            rows = np.ndarray(shape, item.dtype, block, item.place.offset, item.strides)
        tensor = torch.from_numpy(rows)
        return tensor if item.recast is None else tensor.view(item.recast)

    def gather_tags(self, name: str, slots: Int64Array) -> Tensor:
        """Copy one tag per window.

        Args:
            name: a tag column.
            slots: int64 [B].

        Returns:
            [B, *shape] in the column's dtype; always a copy.
        """
        return self.gather(name, slots, 1)

    def is_tag(self, name: str) -> bool:
        """Whether this column has one value per sequence instead of one per transition."""
        return name in self._tag_names

    def bring(self, values: npt.NDArray[Any]) -> Tensor:
        """What was computed, as a tensor where the columns are: itself."""
        return torch.from_numpy(values)

    def replace(self, pairs: Sequence[tuple[Tensor, Tensor]], places: Int64Array) -> None:
        """Put windows gathered later in the places of others.

        Args:
            pairs: what is changed and what is put there, [B, ...] and [n, ...] of integers.
            places: int64 [n], each less than B, and none twice.
        """
        rows = torch.from_numpy(places)
        for target, values in pairs:
            target[rows] = values

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Copy ``count`` consecutive rows of one stored column: [count, *shape]."""
        item = self._items[name]
        found = item.rows[start : start + count].copy()
        if len(found) != count:
            raise IndexError(f"rows {start} to {start + count} of {len(item.rows)}")
        rows = torch.from_numpy(found)
        return rows if item.recast is None else rows.view(item.recast)

    def read_tag(self, name: str, slot: int) -> Tensor:
        """Copy the tag of one slot: [*shape]."""
        return self.read(name, slot, 1)[0]

    # -- rows as plain bytes, for files --------------------------------------------------------

    def bytes_of(self, name: str, starts: Int64Array, counts: Int64Array) -> list[memoryview]:
        """The bytes of many runs of rows, one after the other, to be read.

        Args:
            name: a stored column, or a tag column, whose rows are slots.
            starts: int64 [n], first row of each run; nothing but rows that are reserved.
            counts: int64 [n], rows of each run, at least 1.

        Returns:
            The memory itself, in as few pieces as it lies in, or one copy where the runs are
            short or the rows lie among others.
        """
        starts, counts = merged(starts, counts)
        item = self._items[name]
        if int(counts.sum()) * item.row_bytes < _SHORT_BYTES * len(starts):
            view = self._views.get((name, 0)) or self._new_single(name, 0)
            return [view.windows[rows_of(starts, counts)].view(np.uint8).data]
        if item.place.apart:
            return self._memory_of(item, starts, counts)
        rows = np.empty((int(counts.sum()), *item.shape), item.dtype)
        for place, run in each_run(starts, counts):
            rows[place] = item.rows[run]
        return [rows.reshape(-1).view(np.uint8).data]

    @contextmanager
    def filling(
        self, name: str, starts: Int64Array, counts: Int64Array
    ) -> Iterator[list[memoryview]]:
        """Memory to write the bytes of many runs of rows to; see ``bytes_of``.

        They are where they belong at the end of the context; what it yields stays readable.
        """
        starts, counts = merged(starts, counts)
        item = self._items[name]
        if item.place.apart:
            yield self._memory_of(item, starts, counts)
            return
        rows = np.empty((int(counts.sum()), *item.shape), item.dtype)
        yield [rows.reshape(-1).view(np.uint8).data]
        if rows.nbytes < _SHORT_BYTES * len(starts):
            item.rows[rows_of(starts, counts)] = rows
        else:
            for place, run in each_run(starts, counts):
                item.rows[run] = rows[place]

    def _memory_of(self, item: Item, starts: Int64Array, counts: Int64Array) -> list[memoryview]:
        row, memory = item.row_bytes, self._regions[item.region].numpy().data
        return [
            memory[start : start + count]
            for start, count in zip((starts * row).tolist(), (counts * row).tolist(), strict=True)
        ]

    # -- views ---------------------------------------------------------------------------------

    def _copied(self, view: View, starts: Int64Array) -> npt.NDArray[Any]:
        """The windows that begin at ``starts``, one after the other."""
        windows, size = view.windows, view.windows.itemsize
        if len(starts) * size > _ALONE_BYTES:
            take = getattr(self._into, "take", None)
            memory = None if take is None else take(len(starts) * size)
            if memory is not None or torch.get_num_threads() > 1:
                return self._copied_by_torch(view, starts, memory)
        return taking(windows)(starts)

    @staticmethod
    def _copied_by_torch(
        view: View, starts: Int64Array, memory: npt.NDArray[np.uint8] | None
    ) -> npt.NDArray[Any]:
        """The same, by all of torch's threads, and where somebody wants it."""
        dtype = view.windows.dtype
        found = np.empty(len(starts), dtype) if memory is None else memory.view(dtype)
        out = torch.from_numpy(found.view(view.word).reshape(len(starts), -1))
        torch.index_select(view.tensor, 0, torch.from_numpy(starts), out=out)
        return found

    def _view(self, region: int, length: int, shift: int) -> View:
        """Windows of whole rows."""
        key = (region, length, shift)
        view = self._views.get(key)
        if view is None:
            memory = self._regions[region]
            stride = self._strides[region]
            view = self._keep(key, memory, stride, shift * stride, length * stride)
        return view

    def _new_plan(self, count: int, length: int) -> list[Together]:
        """How ``count`` windows are copied: each region of columns once for every shift."""
        groups: dict[tuple[int, int], list[tuple[str, Item]]] = {}
        for name, (stored, shift) in self._copied_from.items():
            item = self._items[stored]
            groups.setdefault((item.region, shift), []).append((name, item))
        plan = []
        for (region, shift), group in groups.items():
            view = self._view(region, length, shift)
            small = count * view.windows.itemsize <= _ALONE_BYTES
            row = np.dtype(
                {
                    "names": [name for name, _ in group],
                    "formats": [(item.dtype, item.shape) for _, item in group],
                    "offsets": [item.place.offset for _, item in group],
                    "itemsize": self._strides[region],
                }
            )
            columns = [(name, item.recast) for name, item in group]
            take = taking(view.windows) if small else None
            plan.append(Together(view, take, count * length, row, columns))
        if len(self._plans) >= _MAX_VIEWS:
            self._plans.clear()
        self._plans[count, length] = plan
        return plan

    def _new_single(self, name: str, shift: int) -> View:
        """Single rows of one column, without what lies beside it."""
        item = self._items[name]
        stride, offset = item.place.stride, item.place.offset
        memory = self._regions[item.region]
        return self._keep((name, shift), memory, stride, offset + shift * stride, item.row_bytes)

    def _keep(self, key: _Key, memory: Tensor, stride: int, first_byte: int, size: int) -> View:
        count = (len(memory) - first_byte - size) // stride + 1
        word = next(w for w in _WORDS if not (stride | first_byte | size) % w.itemsize)
        words, step = torch.from_numpy(memory.numpy().view(word)), word.itemsize
        view = View(
            windows=np.ndarray((count,), f"V{size}", memory.numpy(), first_byte, (stride,)),
            tensor=words.as_strided((count, size // step), (stride // step, 1), first_byte // step),
            word=word,
        )
        if len(self._views) >= _MAX_VIEWS:
            self._views.clear()
        self._views[key] = view
        return view

    def _add(self, column: Column, region: int, place: Place) -> None:
        memory = self._regions[region]
        self._strides[region] = place.stride
        dtype = column.dtype.numpy
        sizes = np.cumprod((dtype.itemsize, *column.shape[:0:-1]))[::-1]
        strides = (place.stride, *(sizes.tolist() if column.shape else ()))
        count = len(memory) // place.stride
        self._items[column.name] = Item(
            region=region,
            place=place,
            row_bytes=column.row_bytes,
            dtype=dtype,
            shape=column.shape,
            strides=strides,
            recast=None if column.dtype.exact_numpy else column.dtype.torch,
            rows=np.ndarray((count, *column.shape), dtype, memory.numpy(), place.offset, strides),
        )
