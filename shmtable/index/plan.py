"""What a request for room needs: decided before the first store, so a refusal costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shmtable.errors import DuplicateIdentityError, StrategyError
from shmtable.index import fields as f
from shmtable.index.arrays import Arrays
from shmtable.index.extents import Extents
from shmtable.index.layout import bucket_count, row_limit
from shmtable.types import Int64Array


class Growth(NamedTuple):
    """What has to be reserved from the system before the request can be served."""

    rows: int
    slots: int
    buckets: int


@dataclass(frozen=True)
class Blocked:
    """The request must wait: what is in the way is being written by others."""

    reason: str


_TAKEN = Blocked("the room left is taken by sequences that others are writing")


class Leaving(NamedTuple):
    """Who must go first.

    Attributes:
        slots: of those.
        fits: the memory that is reserved will do then, as far as is known.
        passes_on: it is one, and has just the rows that are wanted.
    """

    slots: list[int]
    fits: bool
    passes_on: bool = False


class Request(NamedTuple):
    """A sequence that wants room. ``extra``: bit i set, stored column i has one row more."""

    identity: int
    length: int
    span: int
    extra: int
    replace: bool


# The ejector, bound to its random generator: transitions to free -> live slots that free them.
Victims = Callable[[int], Int64Array | list[int]]


class Planner:
    """Decides who must go and what must be reserved. Changes nothing; needs the table lock.

    Args:
        arrays: this process's views of the index.
        extents: where rows are free.
        extra_rows: rows a sequence may have beyond its transitions.
        capacity_rows: rows there are.
    """

    def __init__(
        self, arrays: Arrays, extents: Extents, extra_rows: int, capacity_rows: int
    ) -> None:
        self._arrays = arrays
        self._extents = extents
        self._extra_rows = extra_rows
        self._capacity_rows = capacity_rows

    def leaving_locked(self, request: Request, old: int, victims: Victims) -> Leaving | Blocked:
        """Choose who must go for the request to fit. ``old`` is kept: it is to be replaced."""
        words, slots = self._arrays.words, self._arrays.slot_words
        old_steps = slots[old * f.SLOT_WORDS + f.LENGTH] if old else 0
        need = words[f.LIVE_STEPS] + words[f.WRITING_STEPS] + request.length
        need -= old_steps + words[f.MAXLEN]
        sequences = words[f.LIVE_COUNT] + words[f.WRITING_COUNT] + (0 if old else 1)
        full = sequences > words[f.MAX_SEQUENCES]
        if need <= 0 and not full:
            node = self.locate_locked(request.span)
            if node >= 0:
                end = self._extents.end_locked(node) + request.span
                return Leaving([], end <= words[f.RESERVED_ROWS])
        available = words[f.LIVE_STEPS] - old_steps
        wanted = max(need, 1 if full else 0)
        while True:
            if wanted > available or (full and not available):
                return _TAKEN
            leaving = self.ask_locked(victims, wanted, old, old_steps) if wanted else []
            if len(leaving) == 1 and slots[leaving[0] * f.SLOT_WORDS + f.SPAN] == request.span:
                return Leaving(leaving, True, True)
            if self._extents.fits_locked(request.span, leaving, self._rows_at_hand()):
                return Leaving(leaving, True)
            # Rows enough become free, but apart from each other. A few more ejections often join
            # them, while memory is never given back: where there is as much as maxlen needs, and
            # the sequence is a small part of the table, they come before more of it.
            more = wanted + request.span
            enough = words[f.RESERVED_ROWS] >= words[f.MAXLEN] >= 8 * request.span
            if enough and more <= available:
                more_leaving = self.ask_locked(victims, more, old, old_steps)
                if self._extents.fits_locked(request.span, more_leaving, self._rows_at_hand()):
                    return Leaving(more_leaving, True)
            if self.locate_locked(request.span) >= 0 or (
                self._extents.widest_locked(
                    np.array(leaving, np.int64),
                    self._arrays.in_state(f.WRITING, f.LIVE, f.LOADED),
                    self.row_limit(),
                )
                >= request.span
            ):
                return Leaving(leaving, False)
            if wanted == available:
                return _TAKEN
            # Free rows enough, but nowhere in one piece: only more ejections can help.
            wanted = min(2 * max(wanted, request.span), available)

    def ask_locked(self, victims: Victims, wanted: int, old: int, old_steps: int) -> list[int]:
        """The ejector's choice without ``old``, checked: a user may have written it."""
        slots = self._arrays.slot_words
        chosen = _as_list(victims(wanted))
        freed = 0
        if old and old in chosen:
            others = [slot for slot in _as_list(victims(wanted + old_steps)) if slot != old]
            # Where ``old`` would have gone late, those before it free more than is needed.
            sums = np.cumsum(self._arrays.slots[others, f.LENGTH])
            chosen = others[: np.searchsorted(sums, wanted) + 1]
        for slot in chosen:
            if slots[slot * f.SLOT_WORDS + f.STATE] != f.LIVE:
                raise StrategyError(
                    f"the ejector chose slot {slot}, which is not live; choose from live_slots()",
                    slot=slot,
                )
            freed += slots[slot * f.SLOT_WORDS + f.LENGTH]
        if freed < wanted or (len(chosen) > 1 and len(set(chosen)) != len(chosen)):
            raise StrategyError(
                f"the ejector freed {freed} transitions in {len(chosen)} slots, {wanted} were "
                "asked for: it must return distinct live slots that free at least as many"
            )
        return chosen

    def growth_locked(self, span: int, leaving: Leaving, count: int = 1) -> Growth | Blocked | None:
        """What to reserve first; None for nothing, Blocked where there is no more to be had.

        Args:
            span: rows, in one piece.
            leaving: who is ejected first.
            count: slots.
        """
        if leaving.fits and len(leaving.slots) >= count:
            return None  # those who leave bring as many slots, and as much room in the identity map
        words = self._arrays.words
        if leaving.fits or self._extents.fits_locked(span, leaving.slots, self._rows_at_hand()):
            rows = 0
        else:
            node = self.locate_locked(span)
            # Where only the ejections make room, any row below the limit may be the place.
            rows = self.row_limit() if node < 0 else self._extents.end_locked(node) + span
        slots = words[f.SLOT_HIGH] + max(count - words[f.FREE_COUNT] - len(leaving.slots), 0)
        # Loaded slots count as well: publishing enters them all at once, and can reserve nothing.
        buckets = bucket_count(words[f.SLOT_HIGH] - words[f.FREE_COUNT] + count - 1)
        if (
            rows <= words[f.RESERVED_ROWS]
            and slots <= words[f.RESERVED_SLOTS]
            and buckets <= words[f.BUCKETS]
        ):
            return None
        if slots > len(self._arrays.slots):
            return Blocked("a file is being restored into all slots that are left")
        return Growth(rows, slots, buckets)

    def locate_locked(self, span: int) -> int:
        """The slot behind which ``span`` rows are free; -1 for nowhere."""
        return self._extents.locate_locked(span, self.row_limit())

    def _rows_at_hand(self) -> int:
        """Rows that may be used without taking more memory."""
        return min(self._arrays.words[f.RESERVED_ROWS], self.row_limit())

    def row_limit(self) -> int:
        """Rows that may be used at all."""
        words = self._arrays.words
        limit = row_limit(words[f.MAXLEN], words[f.MAX_SEQUENCES], self._extra_rows)
        return min(limit, self._capacity_rows)


def _as_list(slots: Int64Array | list[int]) -> list[int]:
    # A copy: the ejector may take out of its own list what it is told has left.
    return slots.copy() if type(slots) is list else np.asarray(slots).tolist()


def duplicate(identity: int, live: bool) -> DuplicateIdentityError:
    """The error for an identity that is taken."""
    return DuplicateIdentityError(
        f"identity {identity} is already {'in the table' if live else 'being written'}: an "
        "identity may be added once; use another, remove(identity) first, or make the table with "
        "on_duplicate='replace'",
        identity=identity,
    )
