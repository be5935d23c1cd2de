"""A table as it looks from outside: read without its lock, without its classes, without joining.

Every number is copied by itself, so one store of somebody's may be in one number and not yet in
another. The header is copied until two copies agree on what changes with every add and every
removal; a writer that never rests, or one that died in the middle, is not waited for.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.columns import Schema
from shmtable.errors import ArenaDamagedError, ArenaError, SpecError
from shmtable.index import Attachments, Layout, attachments, refuse_impossible
from shmtable.index import fields as f
from shmtable.mappers import MAPPERS
from shmtable.protocols.counts import counts, processes, reserved_bytes
from shmtable.protocols.header import extra_rows, plan_layout
from shmtable.protocols.options import Options
from shmtable.protocols.pace import Pace
from shmtable.shm.header import DIRTY, FACTOR, TOTAL_BYTES, header_bytes
from shmtable.shm.look import Look
from shmtable.types import Int64Array, LiveSequences, Stats, rows_of

_TRIES = 50
_PAUSE_S = 100e-6


class Outside:
    """One table, looked at.

    Args:
        look: its file; closed with this.

    Attributes:
        description: the table's, in types that JSON knows.
        options: its limits at creation, and so on.

    Raises:
        ArenaDamagedError: it describes no table.
    """

    def __init__(self, look: Look) -> None:
        self.look = look
        self.description: dict[str, Any] = look.header.json
        try:
            self.options = Options(**self.description["options"])
            self._schema, self._layout = self._plan()
        except ArenaError:
            raise
        except Exception as error:  # whatever a text that anybody may have written leads to
            raise ArenaDamagedError(
                f"{look.where}: the table's description makes no sense ({error!r}); "
                "create the table again"
            ) from error

    def _plan(self) -> tuple[Schema, Layout]:
        """What is stored, and where, as far as can be known without classes of the user's own."""
        spec, factor = self.description, self.look.header.words[FACTOR]
        try:
            schema = Schema.from_json(spec["schema"], MAPPERS)
            self._whole = True
            return schema, plan_layout(spec, schema, self.options, factor)
        except SpecError:
            # Computed columns take no room. How far they look ahead moves only what lies behind
            # the index proper.
            real = [c for c in spec["schema"]["columns"] if c["kind"] != "VirtualColumn"]
            schema = Schema.from_json({**spec["schema"], "columns": real}, {})
            self._whole = False
            layout = Layout.plan(
                first_byte=header_bytes(spec),
                factor=factor,
                maxlen=self.options.maxlen,
                max_sequences=self.options.max_sequences,
                extra_rows=1,
                arrays=[],
            )
            return schema, layout

    def close(self) -> None:
        """Let go of the file."""
        self.look.close()

    # -- numbers ---------------------------------------------------------------------------

    def stats(self) -> Stats:
        """See ``Stats``. Where a mapper is not known here, ``bytes_reserved`` is the file's own.

        Raises:
            ArenaDamagedError: the numbers are no table's.
        """
        words = self._words()
        taken = reserved_bytes(words, self._layout) if self._whole else self.look.taken_bytes()
        crowd = Attachments(words, self._region("attachments", words).cast("q"))
        return Stats(
            **counts(words, Pace(words, self.options.max_times_sampled)),
            oldest_age_transitions=self._oldest_age(words),
            bytes_payload=words[f.LIVE_STEPS] * self._schema.row_bytes,
            bytes_reserved=taken,
            bytes_address=self.look.header.words[TOTAL_BYTES],
            processes=processes(crowd.all(), can_tell=attachments.can_tell(words)),
        )

    def is_half_changed(self) -> bool:
        """Whether a change is under way, or was cut off and waits for the next call to repair."""
        return bool(self._words()[DIRTY])

    def sequences(self) -> LiveSequences:
        """The live sequences, one by one; O(sequences), and transitions if they have priorities.

        Raises:
            ArenaDamagedError: the numbers are no table's.
        """
        words = self._words()
        slots = np.frombuffer(self._region("slots", words), np.int64).reshape(-1, f.SLOT_WORDS)
        notes = np.frombuffer(self._region("notes", words), np.int64).reshape(-1, f.SLOT_WORDS)
        times = np.frombuffer(self._region("times_sampled", words), np.int64)
        live = np.flatnonzero(
            (slots[:, f.STATE] == f.LIVE) & (slots[:, f.ORDER] >= words[f.LIVE_FROM])
        )
        live = live[np.argsort(slots[live, f.ORDER])]
        return LiveSequences(
            slots[live, f.LENGTH],
            np.maximum(words[f.STEP_TOTAL] - notes[live, f.STEPS_AT], 0),
            times[live],
            self._priorities(words, live, slots[live, f.START], slots[live, f.LENGTH]),
        )

    # -- pieces ----------------------------------------------------------------------------

    def _words(self) -> memoryview:
        words = self.look.words()
        for _ in range(_TRIES):
            before, words = words, self.look.words()
            known = slice(f.NEXT_ORDER, f.WINDOWS_SAMPLED)
            if not words[DIRTY] and before[known] == words[known]:
                break
            time.sleep(_PAUSE_S)
        if self._whole:
            refuse_impossible(words, self._layout, extra_rows(self._schema), self.look.where)
        return words

    def _region(self, name: str, words: memoryview, count: int | None = None) -> memoryview:
        """A copy of a region: all of it, of slots those in use, or ``count`` items."""
        region = self._layout.regions[name]
        if count is None:
            count = words[f.SLOT_HIGH] if region.per == "slot" else region.capacity
        count = min(max(count, 0), region.capacity)
        return memoryview(self.look.read(region.offset, count * region.item_bytes))

    def _oldest_age(self, words: memoryview) -> int:
        links = self._region("links", words, 1).cast("q")  # of slot 0, the list's two ends
        oldest = links[f.NEWER]
        if not 0 < oldest < words[f.SLOT_HIGH]:
            return 0
        notes = self._layout.regions["notes"]
        note = memoryview(self.look.read(notes.offset + oldest * notes.item_bytes, 64)).cast("q")
        return int(max(words[f.STEP_TOTAL] - note[f.STEPS_AT], 0))

    def _priorities(
        self, words: memoryview, live: Int64Array, starts: Int64Array, lengths: Int64Array
    ) -> npt.NDArray[np.float64] | None:
        if not self._whole:
            return None
        regions = self._layout.regions
        name = next((n for n in regions if n.split("/")[-1].split(".")[-1] == "priority"), None)
        if name is None:
            return None
        if regions[name].per == "slot":
            return np.frombuffer(self._region(name, words, words[f.SLOT_HIGH]))[live]
        values = np.frombuffer(self._region(name, words, words[f.ROW_HIGH]))
        rows = len(values)
        inside = (starts >= 0) & (starts <= rows) & (lengths >= 0) & (lengths <= rows - starts)
        found = values[rows_of(starts[inside], lengths[inside])]
        return found[~np.isnan(found)]
