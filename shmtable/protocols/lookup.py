"""Single sequences and the table as a whole: reading them, removing them, resizing."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from shmtable.errors import CapacityError, UnknownIdentityError
from shmtable.index import attachments, findings_locked
from shmtable.index import fields as f
from shmtable.index.layout import SPARE_SLOTS, row_limit
from shmtable.protocols.core import Core
from shmtable.protocols.counts import counts, processes, reserved_bytes
from shmtable.protocols.header import extra_rows
from shmtable.types import Finding, Int64Array, Stats


def identities(core: Core) -> Int64Array:
    """int64 [n], the live sequences' identities by order of insertion."""
    return core.guard.run(_identities_locked, core)


def _identities_locked(core: Core) -> Int64Array:
    records = core.arrays.slots[core.view.live_slots()]
    identities: Int64Array = records[np.argsort(records[:, f.ORDER]), f.IDENTITY]
    return identities


def sequence(core: Core, identity: int) -> dict[str, Tensor]:
    """A copy of one sequence: without the lock, and again if it left or changed meanwhile."""
    while True:
        slot, generation, updates, start, length, extra = core.guard.run(
            _locate_locked, core, identity
        )
        result: dict[str, Tensor] = {}
        for number, column in enumerate(core.schema.stored):
            rows = length + core.schema.look_ahead[column.name] + (extra >> number & 1)
            result[column.name] = core.storage.read(column.name, start, rows)
        for column in core.schema.tags:
            result[column.name] = core.storage.read_tag(column.name, slot)
        if core.guard.run(_unchanged_locked, core, slot, generation, updates):
            return {c.name: result[c.name] for c in core.schema.columns if c.name in result}


def _locate_locked(core: Core, identity: int) -> tuple[int, int, int, int, int, int]:
    slot = _live_locked(core, identity)
    base = slot * f.SLOT_WORDS
    slots, notes = core.arrays.slot_words, core.arrays.note_words
    return (
        slot,
        slots[base + f.GENERATION],
        core.arena.words[f.UPDATES],
        slots[base + f.START],
        slots[base + f.LENGTH],
        notes[base + f.EXTRA_MORE] << f.EXTRA_BITS | notes[base + f.EXTRA],
    )


def _unchanged_locked(core: Core, slot: int, generation: int, updates: int) -> bool:
    slots, base = core.arrays.slot_words, slot * f.SLOT_WORDS
    return bool(slots[base + f.GENERATION] == generation and slots[base + f.VERSION] <= updates)


def _live_locked(core: Core, identity: int) -> int:
    live, _ = core.index.identities.find_locked(identity)
    if not live:
        raise UnknownIdentityError(
            f"identity {identity} is not in the table; identities() lists those that are",
            identity=identity,
        )
    return live


def remove(core: Core, identity: int) -> None:
    """Remove one live sequence."""
    core.guard.run(_remove_locked, core, identity)


def _remove_locked(core: Core, identity: int) -> None:
    core.index.eject_locked([_live_locked(core, identity)])


def clear(core: Core) -> None:
    """Remove all live sequences; what is being written now becomes live afterwards."""
    core.guard.run(core.index.clear_locked)


def resize(core: Core, maxlen: int) -> None:
    """Raise the limits in place, as far as the address space goes."""
    core.guard.run(_resize_locked, core, maxlen)


def _resize_locked(core: Core, maxlen: int) -> None:
    words, layout = core.arena.words, core.layout
    if maxlen < words[f.MAXLEN]:
        raise CapacityError(
            f"new_size is {maxlen}, smaller than maxlen, {words[f.MAXLEN]}; a table can only "
            "grow: make a smaller one, or remove sequences",
            new_size=maxlen,
            maxlen=words[f.MAXLEN],
        )
    if not layout.can_grow and maxlen > words[f.MAXLEN]:
        raise CapacityError(
            f"new_size is {maxlen}, but memory on {core.options.storage_device} was taken for "
            f"{words[f.MAXLEN]} transitions, all of it at creation; make a new table of that size",
            new_size=maxlen,
            most=words[f.MAXLEN],
        )
    # The bound on sequences keeps its proportion, as if the table had been made this large. Not
    # that of the present limits: a process that died in between may have raised only one of them.
    sequences = core.options.max_sequences * maxlen // core.options.maxlen
    rows = row_limit(maxlen, sequences, extra_rows(core.schema))
    if (
        layout.can_grow
        and rows > layout.capacity_rows
        or sequences + SPARE_SLOTS >= layout.capacity_slots
    ):
        most = core.options.maxlen * core.arena.factor
        raise CapacityError(
            f"new_size is {maxlen}, but address space was taken for {most} transitions "
            f"({core.arena.factor} times the first maxlen); make a new table of that size",
            new_size=maxlen,
            most=most,
        )
    core.index.resize_locked(maxlen, sequences)


def check(core: Core) -> list[Finding]:
    """Every broken invariant."""
    return core.guard.run(findings_locked, core.index)


def stats(core: Core) -> Stats:
    """Counts and sizes of one moment, and then who has the table open."""
    found = core.guard.run(_counts_locked, core)
    can_tell = attachments.can_tell(core.arena.words)
    return Stats(**found, processes=processes(core.attachments.all(), can_tell=can_tell))


def _counts_locked(core: Core) -> dict[str, Any]:
    words = core.arena.words
    oldest = core.view.oldest()
    steps_at = core.arrays.note_words[oldest * f.SLOT_WORDS + f.STEPS_AT]
    on_device = 0 if core.memory is None else len(core.memory.tensor)
    return {
        **counts(words, core.pace),
        "oldest_age_transitions": words[f.STEP_TOTAL] - steps_at if oldest else 0,
        "bytes_payload": words[f.LIVE_STEPS] * core.schema.row_bytes,
        "bytes_reserved": reserved_bytes(words, core.layout) + on_device,
        "bytes_address": core.arena.total_bytes,
    }


def described(core: Core) -> str:
    """Name, fill, columns and memory, for people."""
    now = stats(core)
    columns = ", ".join(f"{c.name} {c.dtype.name}{list(c.shape)}" for c in core.schema.columns)
    return (
        f" {core.where()}: {now.transitions} of {now.maxlen} transitions in {now.sequences} "
        f"sequences; {columns}; {now.bytes_reserved / 2**20:.1f} MiB"
    )
