"""Element types: one name, a torch dtype and the numpy dtype its bits are stored as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shmtable.errors import SpecError

TorchDType = torch.dtype  # in DType's body, ``torch`` is a field


@dataclass(frozen=True, repr=False)
class DType:
    """The type of a column's elements, in the three forms the package needs.

    Attributes:
        name: torch's name for it ("float32", "bool", "bfloat16", ...); what a header records.
        torch: the dtype samples are delivered in.
        numpy: the dtype of the stored bits; an unsigned integer of the same size where numpy
            has no such type (bfloat16, float8).
        carrier: a dtype of the same size that ``index_select`` copies on every supported torch
            and device; ``torch`` itself where possible. Copying bits needs no arithmetic.
        exact_numpy: True when ``numpy`` means the same numbers as ``torch``, so that an ndarray
            of it can be stored as it is.
    """

    name: str
    torch: TorchDType
    numpy: np.dtype[Any]
    carrier: TorchDType
    exact_numpy: bool

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.numpy.itemsize

    def __repr__(self) -> str:
        return self.name


# Types that torch computes with everywhere: stored, gathered and delivered as they are.
_PLAIN = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)
# Types with few torch operations (older versions lack index_select for them): gathered as
# integers of the same size. The second group does not exist in numpy.
_UNSIGNED = ("uint16", "uint32", "uint64")
_FOREIGN = (
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)
_CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _known_dtypes() -> dict[str, DType]:
    known = {}
    for name in _PLAIN:
        torch_dtype = getattr(torch, name)
        known[name] = DType(name, torch_dtype, np.dtype(name), torch_dtype, True)
    for name in _UNSIGNED + _FOREIGN:
        torch_dtype = getattr(torch, name, None)
        if torch_dtype is None:  # a float8 flavour newer than the installed torch
            continue
        bits = np.dtype(f"u{torch_dtype.itemsize}")
        carrier = _CARRIERS[bits.itemsize]
        if name == "bfloat16":  # gathered natively wherever torch runs
            carrier = torch_dtype
        known[name] = DType(name, torch_dtype, bits, carrier, name in _UNSIGNED)
    return known


DTYPES: dict[str, DType] = _known_dtypes()
_BY_TORCH = {known.torch: known for known in DTYPES.values()}


def as_dtype(value: Any) -> DType:
    """Find the element type that ``value`` names.

    Args:
        value: a DType, a torch dtype, a numpy dtype or scalar type, Python's ``bool``, ``int``
            (int64) or ``float`` (float64), or a name ("float32", "bfloat16", "torch.int64").

    Raises:
        SpecError: nothing shmtable can store has this name.
    """
    if isinstance(value, DType):
        return value
    found: DType | None = None
    if isinstance(value, torch.dtype):
        found = _BY_TORCH.get(value)
    elif isinstance(value, str) and value.removeprefix("torch.") in DTYPES:
        found = DTYPES[value.removeprefix("torch.")]
    elif value is not None:  # numpy reads None as float64
        try:
            found = DTYPES.get(np.dtype(value).name)
        except (TypeError, ValueError, SyntaxError):
            found = None  # refused below, in our own words
    if found is None:
        raise SpecError(
            f"dtype {value!r} cannot be stored; give a numpy or torch dtype, bool, int or float, "
            f"or one of the names {', '.join(DTYPES)}",
            dtype=repr(value),
        )
    return found
