"""What a limiter is: pure arithmetic on the counts of one moment.

Where these counts are kept, and who waits for what, is the business of ``protocols.pace``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from shmtable.errors import SpecError

UNITS = ("transition", "sequence")


class Standing(NamedTuple):
    """Where a table stands at one moment, ``live`` and ``writing`` in the limiter's unit.

    Attributes:
        live: in the table.
        writing: being written by somebody at this moment; becomes live, or comes to nothing.
        ahead: how far adds are ahead of samples: inserted * ratio - sampled, without ``writing``.
        room: transitions that can be added without ejecting anything.
    """

    live: int
    writing: int = 0
    ahead: float = 0.0
    room: int = 0


class Limiter(ABC):
    """Decides when ``add_sequence`` and ``sample`` may proceed."""

    @property
    def unit(self) -> str:
        """ "transition" or "sequence": what is counted."""
        return "transition"

    @property
    def rate(self) -> float:
        """Samples for each insert; 0 where the two are not compared."""
        return 0.0

    def insert_amount(self, length: int) -> int:
        """What adding a sequence of so many transitions counts."""
        return length if self.unit == "transition" else 1

    def sample_amount(self, count: int, steps: int) -> int:
        """What a sample of ``count`` windows of ``steps`` transitions counts."""
        return count * steps if self.unit == "transition" else count

    def insert_asked(self, amount: int, largest: int) -> int:
        """What an add of ``amount`` must find room for, where ``largest`` is the most so far."""
        return amount

    @abstractmethod
    def insert_blocked(self, now: Standing, amount: int) -> str:
        """Why an add of ``amount`` must wait; empty when it need not."""

    @abstractmethod
    def sample_blocked(self, now: Standing, amount: int) -> str:
        """Why a sample of ``amount`` must wait; empty when it need not."""

    def impossible(self, largest_insert: int, largest_sample: int) -> str:
        """Why both sides could come to wait for each other for ever, were these the largest
        amounts asked for; empty when they cannot.
        """
        return ""

    def first_ahead(self, live: int, largest_insert: int, largest_sample: int) -> float:
        """``ahead`` of a table that holds ``live`` and whose counting begins now."""
        return 0.0

    @abstractmethod
    def misfit(self, maxlen: int, max_sequences: int) -> str:
        """Why it cannot work in a table of these limits; empty when it can."""


def positive_integer(owner: object, what: str, value: Any) -> None:
    """Refuse anything but an integer of at least 1.

    Raises:
        SpecError: it is something else.
    """
    if type(value) is not int or not 1 <= value < 1 << 53:
        raise SpecError(
            f"{type(owner).__name__}: {what} is {value!r}; give an integer of at least 1"
        )


def known_unit(owner: object, value: Any) -> None:
    """Refuse anything but a unit.

    Raises:
        SpecError: it is something else.
    """
    if value not in UNITS:
        raise SpecError(f"{type(owner).__name__}: per is {value!r}; give one of {UNITS}")


def too_large(owner: object, what: str, value: int, unit: str, maxlen: int, most: int) -> str:
    """Why a table cannot hold as much as a limiter waits for; empty when it can."""
    limit, name = (maxlen, "maxlen") if unit == "transition" else (most, "max_sequences")
    if value <= limit:
        return ""
    return (
        f"{type(owner).__name__}: {what} is {value} {unit}s, the table holds at most {limit} "
        f"({name}); give a smaller {what}, or make a larger table"
    )
