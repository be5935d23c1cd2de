"""TorchRL: a table behind the interface of its replay buffers.

Needs the extra: ``pip install 'shmtable[torchrl]'``.

It takes the place of a whole ``TensorDictReplayBuffer`` and not of the storage inside one: a
storage is asked for rows by number, which TorchRL's writer and sampler choose, while in a table
whole sequences come and go, under a sampler and an ejector that all processes share.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from shmtable.columns import Column, TagColumn, VirtualColumn
from shmtable.errors import PriorityError, SequenceError, SpecError
from shmtable.integrations.identities import new_identity
from shmtable.integrations.tensordict import Key, as_tensordict, key_of, sequence_from_tensordict
from shmtable.mappers import NextElementMapper
from shmtable.protocols.arguments import at_least_one
from shmtable.table import ArrayMemoryTable
from shmtable.types import SamplePoints

if TYPE_CHECKING:
    from tensordict import TensorDictBase

__all__ = ["TableReplayBuffer", "columns_from_tensordict"]

_NEXT = "next"
_DONE = (_NEXT, "done")
_TRAJECTORY = ("collector", "traj_ids")
#: Where a step begins none of them is set: only those under "next" say something.
_IDLE = {("done",), ("terminated",), ("truncated",)}
#: What an entry "index" of a sample consists of, in this order.
_POINT = ("slots", "offsets", "generations", "identities", "starts", "lengths")


def columns_from_tensordict(batch: TensorDictBase, leave_out: Iterable[str] = ()) -> list[Column]:
    """The columns of a table for what a collector gives, named by their entries.

    What there is both in front and under "next", such as the observation, is stored once: the
    column "observation", and "next.observation" as a virtual one. Other entries under
    "next" are columns such as "next.reward". Of a trajectory's number, ``("collector",
    "traj_ids")``, a tag is kept. "done", "terminated" and "truncated" in front of a step are left
    out, since they are always false.

    Make the table with ``length_key="next.done"``.

    Args:
        batch: one of its batches, or ``env.fake_tensordict()``; only shapes and dtypes matter.
        leave_out: names of columns not to keep, such as "action_value".
    """
    leave_out = set(leave_out)
    shapes: dict[Key, tuple[tuple[int, ...], torch.dtype]] = {}
    for key in batch.keys(include_nested=True, leaves_only=True):
        path = (key,) if isinstance(key, str) else tuple(key)
        value = batch.get(path)
        if ".".join(path) in leave_out or path in _IDLE:
            continue
        shapes[path] = (tuple(value.shape[batch.batch_dims :]), value.dtype)
    columns: list[Column] = []
    for path, (shape, dtype) in shapes.items():
        name, front = ".".join(path), path[1:] if path[0] == _NEXT else None
        if path == _TRAJECTORY:
            columns.append(TagColumn(name, shape, dtype))
        elif front in shapes:
            target = ".".join(path[1:])
            columns.append(VirtualColumn(name, shape, dtype, target, NextElementMapper()))
        else:
            columns.append(Column(name, shape, dtype))
    return columns


class TableReplayBuffer:
    """A table with the methods of TorchRL's ``TensorDictReplayBuffer``.

    Any number of processes may extend and sample it; pass it to them as you would the table. Each
    ``extend`` adds its data as sequences: a new one begins where an episode has ended, where the
    number of the trajectory changes, and wherever the next observation is not the one that follows.
    So the pieces of an episode that come with different batches are sequences of their own, and
    windows do not reach from one into the other.

    Args:
        table: with the columns of :func:`columns_from_tensordict`, or with others whose names are
            entries ("agent.observation" for ``("agent", "observation")``).
        batch_size: transitions per sample, where ``sample`` is not told.
        sequence_length: consecutive transitions that each sample consists of; as TorchRL's
            ``SliceSampler``, samples are flat, one window after the other.
        priority_key: the entry that ``update_tensordict_priority`` reads.

    Raises:
        SpecError: a batch size that is no multiple of the sequence length.
    """

    def __init__(
        self,
        table: ArrayMemoryTable,
        *,
        batch_size: int | None = None,
        sequence_length: int = 1,
        priority_key: str = "td_error",
    ) -> None:
        self.table = table
        self.sequence_length = at_least_one("sequence_length", sequence_length)
        self.batch_size = batch_size
        self.priority_key = priority_key
        if batch_size is not None:
            self._windows(batch_size)

    def _windows(self, batch_size: int | None) -> int:
        if batch_size is None:
            raise SpecError("batch_size is None, here and where the buffer was made; give it")
        count, rest = divmod(at_least_one("batch_size", batch_size), self.sequence_length)
        if rest:
            raise SpecError(
                f"batch_size is {batch_size}; it counts transitions, in windows of "
                f"{self.sequence_length}: give a multiple of that"
            )
        return count

    # -- adding --------------------------------------------------------------------------------

    def add(self, data: TensorDictBase) -> Tensor:
        """Add one transition, of batch size []; see ``extend``, which takes less time and memory.

        Returns:
            int64 [1], the identity of its sequence.
        """
        return self.extend(data.unsqueeze(0))

    def extend(self, data: TensorDictBase, *, update_priority: bool | None = None) -> Tensor:
        """Add transitions.

        Args:
            data: of batch size [steps] or [environments, ..., steps], each row in order of time.
            update_priority: take the priorities that stand in the entry ``priority_key``, if there
                is one and the table keeps priorities; True unless given.

        Returns:
            int64 [n], the identities of the sequences that it became.

        Raises:
            SequenceError: an entry is missing or does not fit its column; of what is in ``data``
                nothing has been added.
        """
        if not data.batch_dims:
            raise SequenceError("the data has no batch size; give [steps], or call add for one")
        priorities = None
        if update_priority is not False and self.table.keeps_priorities:
            priorities = data.get(self.priority_key, None)
        rows = data.reshape(-1)
        sequences, bounds = [], self._bounds(rows, data.batch_size[-1])
        for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
            piece = sequence_from_tensordict(rows[begin:end], self.table.columns)
            sequences.append((new_identity(), piece))
        if priorities is None:
            self.table.add_sequences(sequences)
        else:
            values = priorities.reshape(len(rows))
            for (identity, piece), begin, end in zip(
                sequences, bounds[:-1], bounds[1:], strict=True
            ):
                self.table.add_sequence(identity, piece, priority=values[begin:end])
        return torch.tensor([identity for identity, _ in sequences], dtype=torch.int64)

    def _bounds(self, rows: TensorDictBase, steps: int) -> list[int]:
        """Where sequences begin in rows that lie in order, [n], and where the last one ends."""
        begins = torch.zeros(len(rows), dtype=torch.bool)
        begins[::steps] = True
        if (done := rows.get(_DONE, None)) is not None:
            begins[1:] |= _any(done[:-1])
        if (numbers := rows.get(_TRAJECTORY, None)) is not None:
            begins[1:] |= _any(numbers[1:] != numbers[:-1])
        for column in self.table.columns:
            if isinstance(column, VirtualColumn) and column.mapper.look_ahead:
                key = key_of(column.target_name, None)
                now, later = rows.get(key, None), rows.get((_NEXT, *key), None)
                if now is not None and later is not None:
                    begins[1:] |= _any(now[1:] != later[:-1])
        return [*begins.nonzero().flatten().tolist(), len(rows)]

    # -- sampling ------------------------------------------------------------------------------

    def sample(self, batch_size: int | None = None, return_info: bool = False) -> Any:
        """Draw transitions.

        Args:
            batch_size: how many, as given where the buffer was made if None.
            return_info: give also a dictionary of "index" and, where there are importance weights,
                "priority_weight".

        Returns:
            A ``TensorDict`` of batch size [batch_size], on the table's device, with the columns'
            entries, "index" (int64 [batch_size, 6], to be given to ``update_priority``) and
            "priority_weight".

        Raises:
            EmptyTableError, NoWindowError: see ``ArrayMemoryTable.sample``.
        """
        count = self._windows(self.batch_size if batch_size is None else batch_size)
        drawn = self.table.sample(count, self.sequence_length)
        made = as_tensordict(self.table, drawn)
        points = np.stack([getattr(drawn.points, name) for name in _POINT], 1)
        index = torch.from_numpy(points).to(self.table.device).unsqueeze(1)
        made["index"] = index.expand(-1, self.sequence_length, -1)
        flat = made.reshape(-1)
        if not return_info:
            return flat
        return flat, {key: flat[key] for key in ("index", "priority_weight") if key in flat.keys()}

    def __iter__(self) -> Iterator[Any]:
        """Samples without end."""
        while True:
            yield self.sample()

    # -- priorities ----------------------------------------------------------------------------

    def update_priority(self, index: Tensor, priority: Any) -> int:
        """Give what was sampled new priorities.

        Args:
            index: int64 [n, 6], the entry "index" of samples, whole windows in their order.
            priority: one number, or one per transition, [n] or [n, 1].

        Returns:
            How many windows were still in the table.

        Raises:
            PriorityError: no such index or priority, or the table keeps none.
        """
        length = self.sequence_length
        index = torch.as_tensor(index).cpu()
        if index.ndim != 2 or index.shape[1] != len(_POINT) or len(index) % length:
            raise PriorityError(
                f"index has shape {tuple(index.shape)}; give the entry 'index' of a sample, "
                f"[n, {len(_POINT)}], in windows of {length}"
            )
        windows = index.view(-1, length, len(_POINT))
        if (windows != windows[:, :1]).any():
            raise PriorityError(
                f"the index mixes windows: each {length} rows of it belong together; "
                "give whole samples, in their order"
            )
        fields = windows[:, 0].T.contiguous().numpy()
        points = SamplePoints(**dict(zip(_POINT, fields, strict=True)))
        values = torch.as_tensor(priority).detach()
        if values.numel() == 1:
            values = values.reshape(1).expand(len(index))
        return self.table.update_priorities(points, values.reshape(-1))

    def update_tensordict_priority(self, data: TensorDictBase) -> None:
        """As ``update_priority``, with the entries "index" and ``priority_key`` of a sample.

        Does nothing where the table keeps no priorities.
        """
        if self.table.keeps_priorities:
            self.update_priority(data["index"], data[self.priority_key])

    # -- the rest ------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.table!r}, batch_size={self.batch_size})"

    def __len__(self) -> int:
        """Transitions in the table."""
        return len(self.table)

    @property
    def write_count(self) -> int:
        """Transitions ever added, by all processes."""
        return self.table.stats().transitions_added

    def can_sample(self, batch_size: int | None = None) -> bool:
        """Whether such a sample could be had now."""
        count = self._windows(self.batch_size if batch_size is None else batch_size)
        return self.table.can_sample(count, self.sequence_length)

    def empty(self) -> None:
        """Remove everything."""
        self.table.clear()

    def dumps(self, path: str | os.PathLike[str]) -> None:
        """Write the table to the file ``path + ".zip"``; see ``ArrayMemoryTable.store``."""
        self.table.store(path)

    def loads(self, path: str | os.PathLike[str]) -> None:
        """Replace the content by that of the file; see ``ArrayMemoryTable.restore``."""
        self.table.restore(path)


def _any(flags: Tensor) -> Tensor:
    """bool [n], on the CPU: whether any of a row's flags is set."""
    return flags.reshape(len(flags), math.prod(flags.shape[1:])).any(1).cpu()
