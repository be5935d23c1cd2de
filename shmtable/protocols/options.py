"""What a table is, checked: at creation against the caller, at attachment against the file."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shmtable.columns import MASK_NAME, Schema
from shmtable.errors import SpecError
from shmtable.index.fields import EXTRA_BITS

_MOST = 1 << 40  # keeps every row number times every row size far from 64 bits
_MOST_STORED = 2 * EXTRA_BITS  # one bit each in a slot's notes
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "on_duplicate": ("error", "replace"),
    "layout": ("flat", "batch_time"),
    "pad": (None, "zero", "edge"),
}


@dataclass(frozen=True)
class Options:
    """What a table is, apart from its columns and strategies; kept in its header.

    Attributes:
        maxlen: most transitions, at creation.
        max_sequences: most sequences, at creation.
        on_duplicate: "error" or "replace".
        layout: "flat" or "batch_time".
        pad: None, "zero" or "edge".
        seed: root of all random streams.
        max_times_sampled: windows handed out of a sequence before it goes; None for no bound.
        storage_device: the device in whose memory the columns are; None for the arena's own.

    Raises:
        SpecError: a value that cannot be.
    """

    maxlen: int
    max_sequences: int
    on_duplicate: str
    layout: str
    pad: str | None
    seed: int
    max_times_sampled: int | None = None
    storage_device: str | None = None

    def __post_init__(self) -> None:
        for name in ("maxlen", "max_sequences"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MOST:
                raise SpecError(f"{name} is {value!r}; give an integer from 1 to 2**40")
        if self.max_sequences > self.maxlen:
            raise SpecError(
                f"max_sequences is {self.max_sequences}, more than maxlen, {self.maxlen}; every "
                "sequence has at least one transition, so give at most maxlen"
            )
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise SpecError(f"{name} is {value!r}; give one of {choices}")
        if type(self.seed) is not int or self.seed < 0:
            raise SpecError(f"seed is {self.seed!r}; give a non-negative integer, or None")
        most = self.max_times_sampled
        if most is not None and (type(most) is not int or not 1 <= most <= _MOST):
            raise SpecError(
                f"max_times_sampled is {most!r}; give an integer from 1 to 2**40, or None"
            )
        device = self.storage_device
        if device is not None and type(device) is not str:
            raise SpecError(f"storage_device is {device!r}; it is a string, or nothing")


def build(
    columns: Any,
    *,
    length_key: str,
    maxlen: Any,
    max_sequences: Any,
    seed: Any,
    pad: Any,
    max_times_sampled: Any = None,
    storage_device: str | None = None,
    **choices: Any,
) -> tuple[Schema, Options]:
    """Check what a caller asks for.

    Raises:
        SpecError: something that cannot be.
    """
    options = Options(
        maxlen=maxlen,
        max_sequences=maxlen if max_sequences is None else max_sequences,
        seed=secrets.randbits(63) if seed is None else seed,
        pad=pad,
        max_times_sampled=max_times_sampled,
        storage_device=storage_device,
        **choices,
    )
    if not isinstance(columns, Iterable):
        raise SpecError(f"columns is {columns!r}; give a list of Column, TagColumn, VirtualColumn")
    reserved = () if pad is None else (MASK_NAME,)
    schema = Schema.build(columns, length_key, reserved=reserved)
    if len(schema.stored) > _MOST_STORED:
        raise SpecError(
            f"{len(schema.stored)} columns are stored, a table has at most {_MOST_STORED}; put "
            "several into one column with a larger shape"
        )
    return schema, options
