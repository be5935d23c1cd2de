"""What callers pass to a table's methods, checked once, before anything else happens."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from shmtable.adaptors import Adaptor
from shmtable.errors import SequenceError, SpecError


def as_int64(what: str, value: Any) -> int:
    """An integer of the caller's, of whatever type, as int.

    Raises:
        SpecError: it is none, or does not fit into 64 bits.
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise SpecError(
            f"{what} is {value!r}, a {type(value).__name__}; give an integer"
        ) from error
    if not -(2**63) <= number < 2**63:
        raise SpecError(f"{what} is {number}; give one that fits into 64 bits, signed")
    return number


def at_least_one(what: str, value: Any) -> int:
    """An integer of the caller's that is 1 or more.

    Raises:
        SpecError: it is not.
    """
    if type(value) is int and 0 < value < 2**63:
        return value  # at once: every sample asks twice
    number = as_int64(what, value)
    if number < 1:
        raise SpecError(f"{what} is {number}; give at least 1")
    return number


def as_adaptors(value: Any) -> list[Adaptor]:
    """One adaptor, several, or None, as a list.

    Raises:
        SpecError: one of them cannot be called.
    """
    if callable(value):
        return [value]
    adaptors = list(value or ()) if isinstance(value, (Iterable, type(None))) else [value]
    for adaptor in adaptors:
        if not callable(adaptor):
            raise SpecError(
                f"adaptor {adaptor!r} cannot be called; give functions or objects of the form "
                "adaptor(result, count, sequence_length) -> result"
            )
    return adaptors


def as_device(value: Any, what: str = "device") -> torch.device:
    """Where samples are delivered, or columns kept.

    Raises:
        SpecError: torch knows no such device.
    """
    try:
        return torch.device(value)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(
            f"{what} is {value!r}, which torch refuses ({reason}); give 'cpu', 'cuda' or 'cuda:0'"
        ) from error


def pairs(sequences: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Pairs of identity and sequence.

    Raises:
        SequenceError: something else.
    """
    if not isinstance(sequences, Iterable):
        raise SequenceError(
            f"sequences is a {type(sequences).__name__}; give pairs of identity and sequence"
        )
    for number, pair in enumerate(sequences):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise SequenceError(
                f"entry {number} of the sequences is {pair!r:.60}; give pairs of identity and "
                "sequence"
            )
        yield as_int64("identity", pair[0]), pair[1]
