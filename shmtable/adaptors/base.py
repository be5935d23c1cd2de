"""The contract of an adaptor: a whole batch in, a whole batch out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from shmtable.errors import SpecError
from shmtable.types import SampleResult


class Adaptor(Protocol):
    """Changes samples before they are handed out; any function of this form is one.

    A table runs its adaptors in order, each on the result of the one before. They may replace,
    add and remove entries of ``result``, and must pickle if the table is sent to processes.
    """

    def __call__(self, result: SampleResult, count: int, sequence_length: int) -> SampleResult:
        """Adapt one batch.

        Args:
            result: the columns by name, in the table's layout; owned by this call.
            count: windows in the batch.
            sequence_length: transitions per window.

        Returns:
            ``result`` itself, changed, or a new one.
        """


def check_key(what: str, key: object) -> str:
    """Refuse a column name that is no string.

    Raises:
        SpecError: saying which argument it is.
    """
    if not isinstance(key, str):
        raise SpecError(f"{what} is {key!r}; give the name of a column")
    return key


def columns_of(adaptor: object, result: SampleResult, keys: Iterable[str]) -> list[Tensor]:
    """The tensors under ``keys``; all of them or none.

    Raises:
        SpecError: one is missing or is no tensor, naming the adaptor.
    """
    found = []
    for key in keys:
        value = result.get(key)
        if not isinstance(value, Tensor):
            has = f"has a {type(value).__name__}" if key in result else "has nothing"
            raise SpecError(
                f"{type(adaptor).__name__}: the sample {has} under '{key}'; name one of its "
                f"columns {', '.join(k for k, v in result.items() if isinstance(v, Tensor))}, "
                "or change the order of the adaptors",
                key=key,
            )
        found.append(value)
    return found
