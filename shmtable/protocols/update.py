"""Writing back into live rows: recurrent states, relabelled rewards.

The rows are rewritten in place, under the lock. A reader that gathers them at the same time finds
out: UPDATES is raised and the slot's VERSION set to it before the first row changes, and whoever
validates compares its windows' VERSIONs with the UPDATES of the moment at which it picked them.
Picking and validating happen under the lock, so one mark before the rows is enough. Nothing is
derived from rows, so an update that is cut off leaves nothing to repair: some windows have their
new values, others the old ones, and the one being written may have both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.columns import Column, TagColumn, VirtualColumn, window_rows
from shmtable.errors import SpecError
from shmtable.index import fields as f
from shmtable.protocols.core import Core
from shmtable.types import BoolArray, Int64Array, SamplePoints

# Bytes written in one section; a single window is never split.
_MOST_BYTES_LOCKED = 64 << 10


def update(core: Core, points: Any, name: Any, values: Any) -> int:
    """Write a column's values back into the windows of a sample; see ``ArrayMemoryTable.update``.

    Returns:
        How many windows were still there and have been written.

    Raises:
        SpecError: points that are none, or a column that cannot be written back.
        SequenceError: values that do not fit.
    """
    if not isinstance(points, SamplePoints):
        raise SpecError(
            f"points is a {type(points).__name__}; give the .points of a sample of this table"
        )
    column = _stored(core, name)
    if not len(points):
        return 0
    windows = window_rows(column, values, len(points))
    steps = windows.shape[1]
    most = max(1, _MOST_BYTES_LOCKED // max(steps * column.row_bytes, 1))
    _refuse_beyond(core, points, steps)
    return sum(
        core.guard.run(_update_locked, core, points, column.name, windows, first, first + most)
        for first in range(0, len(points), most)
    )


def _stored(core: Core, name: Any) -> Column:
    for column in core.schema.stored:
        if column.name == name:
            return column
    known = ", ".join(column.name for column in core.schema.stored)
    kinds = {column.name: type(column) for column in core.schema.columns}
    why = {
        VirtualColumn: "it is computed when sampling",
        TagColumn: "it has one value per sequence",
    }.get(kinds.get(name, Column), "the table has no such column")
    raise SpecError(f"column {name!r}: cannot be written back: {why}; give one of {known}")


def _refuse_beyond(core: Core, points: SamplePoints, steps: int) -> None:
    """Refuse windows that leave their sequences, as the points themselves have them."""
    slots, offsets, lengths = points.slots, points.offsets, points.lengths
    wrong = (slots < 1) | (slots >= core.arena.words[f.SLOT_HIGH]) | (offsets < 0)
    # A padded window ends with its sequence's last transition; what follows is not written.
    wrong |= offsets >= lengths if core.options.pad is not None else offsets + steps > lengths
    if wrong.any():
        place = int(wrong.argmax())
        raise SpecError(
            f"window {place} of the points starts at {offsets[place]} of a sequence of "
            f"{lengths[place]} transitions, {steps} rows of values are given for it; give the "
            "points of a sample of this table, and values for its windows"
        )


def _update_locked(
    core: Core,
    points: SamplePoints,
    name: str,
    windows: npt.NDArray[Any],
    first: int,
    last: int,
) -> int:
    slots, offsets = points.slots[first:last], points.offsets[first:last]
    records = core.arrays.slots[slots]
    there: BoolArray = records[:, f.STATE] == f.LIVE
    there &= records[:, f.GENERATION] == points.generations[first:last]
    there &= offsets < records[:, f.LENGTH]
    places = there.nonzero()[0]
    if not len(places):
        return 0
    number = core.arena.words[f.UPDATES] + 1
    core.arena.words[f.UPDATES] = number
    core.arrays.slots[slots[places], f.VERSION] = number
    offsets, records = offsets[places], records[places]
    ahead = offsets[:, None] + np.arange(windows.shape[1])
    inside = ahead < records[:, f.LENGTH, None]
    rows: Int64Array = (records[:, f.START, None] + ahead)[inside]
    # Of windows that share rows, the last one counts: numpy assigns in order.
    core.storage.put(name, rows, windows[first:last][places][inside])
    return len(places)
