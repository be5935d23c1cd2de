"""tensordict: samples as ``TensorDict``, and trajectories out of them.

Needs the extra: ``pip install 'shmtable[tensordict]'``.

A dot in a column's name is a level of the dictionary: the column "obs.camera" is the entry
``("obs", "camera")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shmtable.columns import Column, TagColumn, VirtualColumn
from shmtable.errors import SequenceError, SpecError
from shmtable.integrations.needed import needed
from shmtable.types import SampleResult

with needed("tensordict", extra="tensordict"):
    from tensordict import TensorDict, TensorDictBase

if TYPE_CHECKING:
    from shmtable.table import ArrayMemoryTable

__all__ = ["add_tensordict", "as_tensordict", "sequence_from_tensordict"]

Key = tuple[str, ...]
WEIGHTS = "priority_weight"  # the entry that losses of TorchRL look for


def as_tensordict(
    table: ArrayMemoryTable, sample: SampleResult, keys: Mapping[str, str | Key] | None = None
) -> TensorDict:
    """A sample as a ``TensorDict`` of shape [count, sequence_length], without copying.

    Columns with one row per window (tags, ``first_only``, ...) stand at each of its transitions, as
    views of the one row; so do importance weights, as "priority_weight". What
    ``update_priorities`` takes, ``sample.points``, stays with the sample.

    Args:
        table: which it was drawn from.
        sample: of any count and sequence_length, in either layout.
        keys: the entries of columns that shall not go by their names: ``{"next_obs": ("next",
            "obs")}``.

    Raises:
        SpecError: the sample has nothing that tells how long its windows are, or an adaptor left
            something in it that has no row for each window or transition.
    """
    count, flat = len(sample.points or ()), table.layout == "flat"
    by_window = {column.name: column.per_window for column in table.columns}
    steps = [sample[name] for name, per in by_window.items() if not per and name in sample]
    if not count or not steps:
        raise SpecError(
            f"the sample has {count} windows and the columns {', '.join(sample)}; give one of this "
            "table, with its points and at least one column with a row per transition"
        )
    length = len(steps[0]) // count if flat else steps[0].shape[1]

    def by_step(name: str, value: Any) -> Any:
        if isinstance(value, dict):  # an adaptor's
            return {key: by_step(name, part) for key, part in value.items()}
        shape = tuple(getattr(value, "shape", ()))
        front = (count * length,) if flat else (count, length)
        if shape[: len(front)] == front and not by_window.get(name, False):
            return value.view(count, length, *shape[len(front) :])
        if shape[:1] == (count,):
            return value.unsqueeze(1).expand(count, length, *shape[1:])
        raise SpecError(
            f"'{name}' of the sample is {shape or type(value).__name__}, with no row for each of "
            f"{count} windows of {length} transitions; let the table's adaptors leave it out",
            column=name,
        )

    made = TensorDict(batch_size=(count, length))
    for name, value in sample.items():
        made[key_of(name, keys)] = by_step(name, value)
    if sample.weights is not None:
        made[WEIGHTS] = sample.weights.unsqueeze(1).expand(count, length)
    return made


def key_of(name: str, keys: Mapping[str, str | Key] | None) -> Key:
    """The entry of a column."""
    key = (keys or {}).get(name, tuple(name.split(".")))
    return (key,) if isinstance(key, str) else tuple(key)


def sequence_from_tensordict(
    trajectory: TensorDictBase,
    columns: Iterable[Column],
    keys: Mapping[str, str | Key] | None = None,
) -> dict[str, Tensor]:
    """One trajectory as what ``add_sequence`` takes.

    Args:
        trajectory: of shape [steps], in order of time. What a column holds after the last step
            (see ``VirtualColumn``) is taken from the last row of its entry under "next".
        columns: the table's; entries that no column stores are left out.
        keys: where columns are to be found that do not go by their names.

    Raises:
        SequenceError: no shape [steps], an entry missing, or none under "next" that is needed.
    """
    if trajectory.batch_dims != 1:
        raise SequenceError(
            f"the trajectory has batch size {tuple(trajectory.batch_size)}; give one of shape "
            "[steps], and several one by one"
        )
    columns = list(columns)
    followed = {
        c.target_name for c in columns if isinstance(c, VirtualColumn) and c.mapper.look_ahead > 0
    }
    sequence = {}
    for column in columns:
        if isinstance(column, VirtualColumn):
            continue
        key = key_of(column.name, keys)
        rows = _entry(trajectory, key, column.name)
        if isinstance(column, TagColumn):
            rows = rows[:1]
        elif column.name in followed:
            rows = torch.cat([rows, _entry(trajectory, ("next", *key), column.name)[-1:]])
        sequence[column.name] = rows.reshape(len(rows), *column.shape)
    return sequence


def _entry(trajectory: TensorDictBase, key: Key, column: str) -> Tensor:
    found = trajectory.get(key, None)
    if not isinstance(found, Tensor):
        raise SequenceError(
            f"column '{column}': the trajectory has no tensor at {key}; it has "
            f"{', '.join(map(str, trajectory.keys(True, True)))}; name the entry in keys",
            column=column,
        )
    return found


def add_tensordict(
    table: ArrayMemoryTable,
    identity: int,
    trajectory: TensorDictBase,
    keys: Mapping[str, str | Key] | None = None,
    **options: Any,
) -> None:
    """Add one trajectory; see :func:`sequence_from_tensordict`.

    Args:
        table: where to.
        identity: as for ``add_sequence``.
        trajectory: of shape [steps].
        keys: where columns are to be found that do not go by their names.
        **options: of ``add_sequence``: ``priority``, ``timeout_s``.
    """
    sequence = sequence_from_tensordict(trajectory, table.columns, keys)
    table.add_sequence(identity, sequence, **options)
