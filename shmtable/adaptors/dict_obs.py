"""Several observation columns as one dictionary."""

from __future__ import annotations

from collections.abc import Sequence

from shmtable.adaptors.base import check_key, columns_of
from shmtable.errors import SpecError
from shmtable.types import SampleResult


class DictObsAdaptor:
    """Moves observation columns into the dictionaries "observation" and "next_observation".

    Args:
        keys: the columns to move.
        output_keys: their names in the dictionaries, the same ones if None.
        with_next: also move the column ``"next_" + key`` of each; without it,
            "next_observation" is an empty dictionary.

    Raises:
        SpecError: names that are no strings, or not one distinct output name for each key.
    """

    def __init__(
        self,
        keys: Sequence[str],
        output_keys: Sequence[str] | None = None,
        with_next: bool = True,
    ) -> None:
        outputs = keys if output_keys is None else output_keys
        for what, names in (("keys", keys), ("output_keys", outputs)):
            if isinstance(names, str):
                raise SpecError(f"{what} is {names!r}; give a list of names, [{names!r}]")
            for name in names:
                check_key(f"an entry of {what}", name)
        if len(keys) != len(outputs) or len(set(outputs)) != len(outputs):
            raise SpecError(
                f"output_keys are {list(outputs)} for keys {list(keys)}; "
                "give one name for each, all different"
            )
        self.keys = tuple(keys)
        self.output_keys = tuple(outputs)
        self.with_next = with_next

    def __call__(self, result: SampleResult, count: int, sequence_length: int) -> SampleResult:
        next_keys = [f"next_{key}" for key in self.keys] if self.with_next else []
        moved = columns_of(self, result, [*self.keys, *next_keys])
        for key in {*self.keys, *next_keys}:
            del result[key]
        now, later = moved[: len(self.keys)], moved[len(self.keys) :]
        result["observation"] = dict(zip(self.output_keys, now, strict=True))
        names = self.output_keys if self.with_next else ()
        result["next_observation"] = dict(zip(names, later, strict=True))
        return result
