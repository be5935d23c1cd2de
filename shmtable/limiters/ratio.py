"""Samples and inserts keep pace with each other.

Let a be what an add counts, b what a sample counts, r the ratio, d = inserted * r - sampled. With
enough in the table, an add is admitted when d + a * r <= high, a sample when d - b >= low.

Both sides wait for each other only where d + a * r > high and d - b < low at once. That needs
a * r + b > high - low. So as long as the largest a and b ever asked for keep to a * r + b <=
high - low, whatever d is, one of the two may go on; ``impossible`` says when they would not. What
is being written does not spoil this: it counts for adds only, and comes to an end.

An add of a counts as much as the largest so far while it asks. With room for just its own, short
ones would go ahead of long ones again and again: whoever plays long episodes would wait for ever,
and the table would hold mostly short ones. The argument above holds for all adds if it does for the
largest.

Below ``min_size`` samples wait, so adds never do: not even for d, which may be high after removals
and ejections. Two windows of rounding do no harm, because both sides get the same slack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from shmtable.errors import SpecError
from shmtable.limiters.base import Limiter, Standing, known_unit, positive_integer, too_large
from shmtable.limiters.min_size import too_few

_SLACK = 1e-9


@dataclass(frozen=True)
class SampleToInsertRatio(Limiter):
    """Holds back whichever side runs ahead: ``ratio`` samples for each insert.

    With inserted * ratio - sampled = d, both counted in ``per``: samples wait until the table
    holds ``min_size``, and while d would fall below min_size * ratio - error_buffer; adds wait
    while d would rise above min_size * ratio + error_buffer, by an add as large as the largest so
    far: short sequences do not go ahead of long ones. Below ``min_size`` adds never wait.

    Args:
        ratio: samples for each insert, above 0.
        min_size: transitions (or sequences) in the table before anything is sampled.
        error_buffer: how far d may stray from min_size * ratio; or a pair, the lowest and the
            highest d themselves. The range must have room for one add and one sample, so it
            must be at least as wide as the largest add * ratio + the largest sample.
        per: "transition": an add counts its transitions, a sample count * sequence_length.
            "sequence": an add counts 1, a sample its windows.

    Raises:
        SpecError: a value that cannot be, or a buffer too small for anything to happen.
    """

    ratio: float
    min_size: int
    error_buffer: float | tuple[float, float]
    per: str = "transition"

    def __post_init__(self) -> None:
        if not _is_finite(self.ratio) or not 0 < self.ratio <= 1e9:
            raise SpecError(
                f"SampleToInsertRatio: ratio is {self.ratio!r}; give a number above 0, at most 1e9"
            )
        positive_integer(self, "min_size", self.min_size)
        known_unit(self, self.per)
        buffer: Any = self.error_buffer
        pair = (
            isinstance(buffer, (tuple, list)) and len(buffer) == 2 and all(map(_is_finite, buffer))
        )
        if not pair and not (_is_finite(buffer) and buffer > 0):
            raise SpecError(
                f"SampleToInsertRatio: error_buffer is {buffer!r}; give a number above 0, or a "
                "pair of numbers, the lowest and the highest inserted * ratio - sampled"
            )
        if pair:
            object.__setattr__(self, "error_buffer", tuple(buffer))
        if message := self.impossible(1, 1):
            raise SpecError(message)

    @property
    def low(self) -> float:
        """The least inserted * ratio - sampled that a sample may leave."""
        if isinstance(self.error_buffer, tuple):
            return self.error_buffer[0]
        return self.min_size * self.ratio - self.error_buffer

    @property
    def high(self) -> float:
        """The most inserted * ratio - sampled that an add may leave."""
        if isinstance(self.error_buffer, tuple):
            return self.error_buffer[1]
        return self.min_size * self.ratio + self.error_buffer

    @property
    def unit(self) -> str:
        """See ``Limiter``."""
        return self.per

    @property
    def rate(self) -> float:
        """See ``Limiter``."""
        return self.ratio

    def insert_asked(self, amount: int, largest: int) -> int:
        """See ``Limiter``; all adds wait alike, however long their sequences are."""
        return max(amount, largest)

    def insert_blocked(self, now: Standing, amount: int) -> str:
        """See ``Limiter``."""
        after = now.ahead + (now.writing + amount) * self.ratio
        if now.live + now.writing < self.min_size or after <= self.high + self._slack:
            return ""
        return (
            f"inserted * ratio - sampled would be {after:g} {self.per}s, at most {self.high:g} "
            f"are allowed, after an add as large as the largest so far, {amount}; sample more, or "
            "set a limiter with a higher ratio or error_buffer"
        )

    def sample_blocked(self, now: Standing, amount: int) -> str:
        """See ``Limiter``."""
        after = now.ahead - amount
        if now.live < self.min_size:
            return too_few(now, self.min_size, self.per)
        if after >= self.low - self._slack:
            return ""
        return (
            f"inserted * ratio - sampled would be {after:g} {self.per}s, at least {self.low:g} "
            "are asked for; add more, or set a limiter with a higher ratio or error_buffer"
        )

    def impossible(self, largest_insert: int, largest_sample: int) -> str:
        """See ``Limiter``."""
        wanted, width = largest_insert * self.ratio + largest_sample, self.high - self.low
        if wanted <= width + self._slack:
            return ""
        return (
            f"SampleToInsertRatio: adds of {largest_insert} and samples of {largest_sample} "
            f"{self.per}s could wait for each other for ever: {largest_insert} * {self.ratio:g} + "
            f"{largest_sample} is {wanted:g}, and error_buffer={self.error_buffer!r} leaves "
            f"{width:g} from lowest to highest; set a limiter with an error_buffer of at least "
            f"{wanted / 2:g}, or add and sample less at a time"
        )

    def first_ahead(self, live: int, largest_insert: int, largest_sample: int) -> float:
        """See ``Limiter``; where there is enough, neither the largest add nor sample waits."""
        if live < self.min_size:
            return live * self.ratio
        return (self.low + largest_sample + self.high - largest_insert * self.ratio) / 2

    def misfit(self, maxlen: int, max_sequences: int) -> str:
        """See ``Limiter``."""
        return too_large(self, "min_size", self.min_size, self.per, maxlen, max_sequences)

    @property
    def _slack(self) -> float:
        # The same for both sides and for ``impossible``: what rounding adds to one, no side loses.
        return _SLACK * (1 + max(abs(self.low), abs(self.high)))


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
