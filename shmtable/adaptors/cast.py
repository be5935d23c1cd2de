"""One column in another dtype."""

from __future__ import annotations

from typing import Any

from shmtable.adaptors.base import check_key, columns_of
from shmtable.columns import as_dtype
from shmtable.types import SampleResult


class KeyCastAdaptor:
    """Casts a column, as ``Tensor.to`` does.

    Args:
        dtype: what to cast to: a torch or numpy dtype, bool, int, float, or a dtype's name.
        key: the column.

    Raises:
        SpecError: a dtype that does not exist, or a key that is no string.
    """

    def __init__(self, dtype: Any, key: str) -> None:
        self.key = check_key("key", key)
        self.dtype = as_dtype(dtype)

    def __call__(self, result: SampleResult, count: int, sequence_length: int) -> SampleResult:
        (value,) = columns_of(self, result, [self.key])
        result[self.key] = value.to(self.dtype.torch)
        return result
