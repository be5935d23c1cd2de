"""When adds and samples may proceed: a table's limiter, in shared words.

The words come in two sets. Setting a limiter fills the set that is not in use and then stores
PACE, which says by its parity which one is: that store is the commit point, so whoever dies before
it has changed nothing. A set also counts: how far adds were ahead of samples when it began, the
table's totals at that moment, and what has been sampled since. What is inserted follows from the
totals, which a crash cannot falsify, and what is being written from derived words, so a killed
writer's share comes back. ``sampled`` is stored before a sample is handed out: a crash can make it
too high by one call, never too low.

A clear or a restore changes LIVE_FROM and nothing here. Whoever looks next finds that the set began
under another LIVE_FROM, and begins a new one with the counts of the table as it is.

Adds are admitted in the section that reserves. Samples are asked about where they are picked, to
save the copy, and admitted where they are validated and counted: two readers may pick at once.
The largest add and sample ever asked for are kept from before the first wait on, and the call that
would let both sides wait for each other for ever is refused; see ``limiters``. A sample may also
lack windows for reasons that no limiter knows: sequences too short, or used up, or a queue whose
rows are full. Then it waits, unless an add waits for it: that one's amount is kept, too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shmtable.errors import ArenaDamagedError, SpecError
from shmtable.index import Blocked
from shmtable.index import fields as f
from shmtable.limiters import (
    LIMITERS,
    Granted,
    Limiter,
    MinSize,
    Queue,
    SampleToInsertRatio,
    Standing,
)
from shmtable.limiters.base import UNITS

# A set of words. Those marked are float64.
_KIND = 0  # see LIMITERS; 0 for no limiter
_PER = 1  # place in UNITS
_SIZE = 2  # of a queue; min_size of the others
_RATIO = 3  # float
_LOW = 4  # float; a pair given by the user, or the buffer's width on either side
_HIGH = 5  # float; NaN for no pair
_LIVE_FROM = 6  # of the table when the counting began
_TOTAL = 7  # committed by then
_AHEAD = 8  # float: inserted * ratio - sampled by then
_SAMPLED = 9  # since then
_LARGEST_INSERT = 10  # asked for, at most
_LARGEST_SAMPLE = 11
_WAITING = 12  # what the last add was to find room for, if it was held back; else 0

_NUMBERS = {cls: number for number, cls in LIMITERS.items()}
_NO_PAIR = float("nan")


class Held(Blocked):
    """The limiter holds a call back."""


class _Set(NamedTuple):
    """The set in use: its first word, and the limiter that it describes."""

    number: int
    base: int
    limiter: Limiter | None


class Grant(NamedTuple):
    """What a table says of its grant.

    Attributes:
        amount: granted just now; below 0 what was taken back.
        unused: granted and not used yet, what is being written counting as unused.
        live: in the table, in the limiter's unit.
        waiting: what the last add asked for, if it was held back; else 0.
        largest: the largest add that was asked for.
    """

    amount: int
    unused: float
    live: int
    waiting: int
    largest: int


class Pace:
    """The limiter of one table. Every method needs the table lock.

    Args:
        words: the header's.
        max_times_sampled: the table's option.
    """

    def __init__(self, words: memoryview, max_times_sampled: int | None) -> None:
        self._words = words
        self._floats = words.cast("B").cast("d")
        self._max_times_sampled = max_times_sampled
        self._known = _Set(0, f.PACE_SETS[0], None)

    # -- the limiter -----------------------------------------------------------------------

    def limiter_locked(self) -> Limiter | None:
        """The limiter in force."""
        return self._set_locked().limiter

    def put_locked(self, limiter: Limiter | None) -> None:
        """Let this limiter be in force from now on; counts begin anew."""
        self._begin_locked(limiter, 0, 0)

    def uses_up_locked(self) -> int | None:
        """How often a sequence may be handed out before it goes; None for no bound."""
        return 1 if self.is_queue_locked() else self._max_times_sampled

    def is_queue_locked(self) -> bool:
        """Whether every live sequence waits to be handed out, and none is ejected."""
        return isinstance(self.limiter_locked(), Queue)

    # -- adds ------------------------------------------------------------------------------

    def insert_locked(self, length: int) -> Held | None:
        """Ask for an add; one that is not held back is counted once it is reserved.

        Raises:
            SpecError: it could make both sides wait for ever; nothing has changed.
        """
        used = self._set_locked()
        if used.limiter is None:
            return None
        amount = used.limiter.insert_amount(length)
        words, place = self._words, used.base + _LARGEST_INSERT
        if amount > words[place]:
            if message := used.limiter.impossible(amount, words[used.base + _LARGEST_SAMPLE]):
                raise SpecError(message)
            words[place] = amount
        asked = used.limiter.insert_asked(amount, words[place])
        reason = used.limiter.insert_blocked(self._standing_locked(used), asked)
        words[used.base + _WAITING] = asked if reason else 0
        return Held(reason) if reason else None

    def can_insert_locked(self, length: int) -> bool:
        """Whether an add would be admitted now."""
        used = self._set_locked()
        if used.limiter is None:
            return True
        amount = used.limiter.insert_amount(length)
        asked = used.limiter.insert_asked(amount, self._words[used.base + _LARGEST_INSERT])
        return not (
            used.limiter.impossible(amount, self._words[used.base + _LARGEST_SAMPLE])
            or used.limiter.insert_blocked(self._standing_locked(used), asked)
        )

    def waiting_add_locked(self) -> str:
        """Why an add that has been held back still must wait for a sample; empty if none must.

        What is being written comes to an end, so while there is any nobody waits for ever.
        """
        used = self._set_locked()
        waiting = self._words[used.base + _WAITING]
        if used.limiter is None or not waiting or self._words[f.WRITING_COUNT]:
            return ""
        return used.limiter.insert_blocked(self._standing_locked(used), waiting)

    # -- samples ---------------------------------------------------------------------------

    def sample_locked(self, count: int, steps: int) -> Held | None:
        """Ask for a sample of ``count`` windows of ``steps`` transitions.

        Raises:
            SpecError: it could make both sides wait for ever; nothing has changed.
        """
        used = self._set_locked()
        if used.limiter is None:
            return None
        amount = used.limiter.sample_amount(count, steps)
        words, place = self._words, used.base + _LARGEST_SAMPLE
        if amount > words[place]:
            if message := used.limiter.impossible(words[used.base + _LARGEST_INSERT], amount):
                raise SpecError(message)
            words[place] = amount
        reason = used.limiter.sample_blocked(self._standing_locked(used), amount)
        return Held(reason) if reason else None

    def can_sample_locked(self, count: int, steps: int) -> bool:
        """Whether a sample would be admitted now."""
        used = self._set_locked()
        if used.limiter is None:
            return True
        amount = used.limiter.sample_amount(count, steps)
        return not (
            used.limiter.impossible(self._words[used.base + _LARGEST_INSERT], amount)
            or used.limiter.sample_blocked(self._standing_locked(used), amount)
        )

    def sampled_locked(self, count: int, steps: int) -> bool:
        """Count an admitted sample; whether that may let a waiting add go on."""
        used = self._set_locked()
        if used.limiter is None or not used.limiter.rate:
            return False
        self._words[used.base + _SAMPLED] += used.limiter.sample_amount(count, steps)
        return True

    # -- several tables together -----------------------------------------------------------

    def grant_locked(self, amount: int) -> Grant:
        """Grant a table under ``Granted`` so much more, or, below 0, take back what is unused.

        Stored as ``sampled`` is, at once: a crash of the caller loses at most what it then does
        not know to have granted.
        """
        used = self._set_locked()
        words, now = self._words, self._standing_locked(used)
        unused = math.floor(-now.ahead - now.writing * (used.limiter.rate if used.limiter else 0))
        amount = max(amount, min(-unused, 0))
        if amount:
            words[used.base + _SAMPLED] += amount
        waiting = words[used.base + _WAITING]
        largest = words[used.base + _LARGEST_INSERT]
        return Grant(amount, -now.ahead + amount, now.live, waiting, largest)

    # -- watching --------------------------------------------------------------------------

    def blocked_locked(self) -> tuple[str, str]:
        """Why an add, and a sample, as large as the largest so far would be held back."""
        used = self._set_locked()
        if used.limiter is None:
            return "", ""
        now = self._standing_locked(used)
        insert, sample = used.base + _LARGEST_INSERT, used.base + _LARGEST_SAMPLE
        return (
            used.limiter.insert_blocked(now, max(self._words[insert], 1)),
            used.limiter.sample_blocked(now, max(self._words[sample], 1)),
        )

    # -- pieces ----------------------------------------------------------------------------

    def _set_locked(self) -> _Set:
        """The set in use, begun anew if the table has been cleared or restored since."""
        words, known = self._words, self._known
        number = words[f.PACE]
        if number != known.number:
            base = f.PACE_SETS[number & 1]
            known = self._known = _Set(number, base, self._read(base))
        if known.limiter is not None and words[known.base + _LIVE_FROM] != words[f.LIVE_FROM]:
            largest = words[known.base + _LARGEST_INSERT], words[known.base + _LARGEST_SAMPLE]
            self._begin_locked(known.limiter, *largest)
            return self._known
        return known

    def _begin_locked(self, limiter: Limiter | None, insert: int, sample: int) -> None:
        words, floats = self._words, self._floats
        number = words[f.PACE] + 1
        base = f.PACE_SETS[number & 1]
        live, total = self._counts(limiter)
        self._write(base, limiter)
        words[base + _LIVE_FROM] = words[f.LIVE_FROM]
        words[base + _TOTAL] = total
        floats[base + _AHEAD] = limiter.first_ahead(live, insert, sample) if limiter else 0.0
        words[base + _SAMPLED] = words[base + _WAITING] = 0
        words[base + _LARGEST_INSERT], words[base + _LARGEST_SAMPLE] = insert, sample
        words[f.PACE] = number  # the commit point
        self._known = _Set(number, base, limiter)

    def _counts(self, limiter: Limiter | None) -> tuple[int, int]:
        """In the limiter's unit: how much is live, and how much was ever committed."""
        words = self._words
        if limiter is not None and limiter.unit == "sequence":
            return words[f.LIVE_COUNT], words[f.SEQUENCE_TOTAL]
        return words[f.LIVE_STEPS], words[f.STEP_TOTAL]

    def _standing_locked(self, used: _Set) -> Standing:
        words, limiter = self._words, used.limiter
        live, total = self._counts(limiter)
        by_sequence = limiter is not None and limiter.unit == "sequence"
        ahead = 0.0
        if limiter is not None and limiter.rate:
            inserted = total - words[used.base + _TOTAL]
            ahead = inserted * limiter.rate - words[used.base + _SAMPLED]
            ahead += self._floats[used.base + _AHEAD]
        return Standing(
            live,
            words[f.WRITING_COUNT] if by_sequence else words[f.WRITING_STEPS],
            ahead,
            words[f.MAXLEN] - words[f.LIVE_STEPS] - words[f.WRITING_STEPS],
        )

    def _write(self, base: int, limiter: Limiter | None) -> None:
        words, floats = self._words, self._floats
        words[base + _KIND] = 0 if limiter is None else _NUMBERS[type(limiter)]
        if isinstance(limiter, Queue):
            words[base + _SIZE] = limiter.size
        elif isinstance(limiter, (MinSize, SampleToInsertRatio)):
            words[base + _SIZE] = limiter.min_size
            words[base + _PER] = UNITS.index(limiter.per)
        if isinstance(limiter, Granted):
            words[base + _PER] = UNITS.index(limiter.per)
            floats[base + _RATIO] = limiter.ratio
        if isinstance(limiter, SampleToInsertRatio):
            buffer = limiter.error_buffer
            floats[base + _RATIO] = limiter.ratio
            low, high = buffer if isinstance(buffer, tuple) else (buffer, _NO_PAIR)
            floats[base + _LOW], floats[base + _HIGH] = low, high

    def _read(self, base: int) -> Limiter | None:
        """The limiter that a set describes.

        Raises:
            ArenaDamagedError: it describes none.
        """
        words, floats = self._words, self._floats
        kind, size = words[base + _KIND], words[base + _SIZE]
        try:
            if kind == 0:
                return None
            cls = LIMITERS[kind]
            if issubclass(cls, Queue):
                return cls(size)
            per = dict(enumerate(UNITS))[words[base + _PER]]
            if cls is Granted:
                return Granted(floats[base + _RATIO], per)
            if cls is MinSize:
                return MinSize(size, per)
            low, high = floats[base + _LOW], floats[base + _HIGH]
            buffer = (low, high) if high == high else low
            return SampleToInsertRatio(floats[base + _RATIO], size, buffer, per)
        except (KeyError, SpecError) as error:
            raise ArenaDamagedError(
                f"the table's memory describes no limiter ({error}); create the table again"
            ) from error
