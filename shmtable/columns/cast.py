"""Values of any accepted kind to arrays, and arrays to the stored dtype without silent loss."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shmtable.columns.dtypes import DTYPES, DType
from shmtable.columns.spec import Column
from shmtable.errors import SequenceError

Array = npt.NDArray[Any]

# Kinds of numbers; each may become any of a higher rank, as in numpy's "same kind" rule.
_RANKS = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
_SCALARS: tuple[type, ...] = tuple(
    known.numpy.type for known in DTYPES.values() if known.exact_numpy
)
_FOREIGN = {known.torch: known for known in DTYPES.values() if not known.exact_numpy}


def to_array(column: Column, value: Any) -> tuple[Array, DType | None]:
    """Make an array of what the caller gave for a column.

    Args:
        column: for messages, and to leave bits of its own dtype as they are.
        value: ndarray, tensor, scalar, or (nested) list of them.

    Returns:
        The array, copied only if it must be, and the column's dtype if the array holds that
        dtype's bits already, else None.

    Raises:
        SequenceError: it is not a regular array of numbers.
    """
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
        try:
            value = torch.stack([torch.as_tensor(item) for item in value])
        except (RuntimeError, TypeError, ValueError) as error:
            _refuse_ragged(column, error)
    if isinstance(value, Tensor):
        return _from_tensor(column, value)
    try:
        array = np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        _refuse_ragged(column, error)
    if array.dtype.kind not in _RANKS:
        _refuse_dtype(column, array.dtype)
    return array, None


def cast(column: Column, array: Array, bits_of: DType | None) -> Array:
    """Convert an array to the column's storage dtype.

    bool becomes anything; integers become integers, floats or complex, and bool if all are 0
    or 1; floats become floats or complex; complex becomes complex.

    Args:
        column: whose dtype is wanted.
        array: of any shape, numbers.
        bits_of: the column's dtype if the array holds its bits already.

    Returns:
        The same array if nothing is to be done, else a new one.

    Raises:
        SequenceError: a kind of number the column does not take, or values out of its range.
    """
    wanted = column.dtype
    if bits_of is not None or (wanted.exact_numpy and array.dtype == wanted.numpy):
        return array
    if not wanted.exact_numpy:
        return _to_foreign(column, array)
    source, target = array.dtype.kind, wanted.numpy.kind
    if source in "ui" and target in "bui":
        _check_integers(column, array)
    elif _RANKS[source] > _RANKS[target]:
        _refuse_kind(column, array.dtype)
    return _checked_astype(column, array, wanted.numpy)


def lossless(dtype: np.dtype[Any]) -> frozenset[type]:
    """The types of single values that ``cast`` converts to a dtype whatever they are."""
    return frozenset({bool, *(kind for kind in _SCALARS if np.can_cast(kind, dtype, "safe"))})


def numbers_within(dtype: np.dtype[Any]) -> tuple[frozenset[type], float, float]:
    """The types of single values that ``cast`` converts to a real dtype if they are in its range.

    Returns:
        The types, the lowest value and the highest one.
    """
    if dtype.kind == "c":
        return frozenset(), 0, 0
    integers = (kind for kind in _SCALARS if np.dtype(kind).kind in "ui")
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        return frozenset({int, float, np.float32, np.float64, *integers}), -largest, largest
    return frozenset({int, *integers}), *_integer_range(dtype)


def _from_tensor(column: Column, value: Tensor) -> tuple[Array, DType | None]:
    foreign = _FOREIGN.get(value.dtype)
    if foreign is None:
        try:
            # Forced: of any device, with a gradient, conjugated or negated lazily.
            return value.numpy(force=True), None
        except (TypeError, RuntimeError):
            _refuse_dtype(column, value.dtype)
    value = value.detach().cpu()
    if foreign == column.dtype:
        return _bits(value, foreign), foreign
    return value.float().numpy(), None  # float32 holds every such number exactly


def _to_foreign(column: Column, array: Array) -> Array:
    """Convert to a dtype numpy lacks, by way of float32 as torch does; the bits of the result."""
    if array.dtype.kind == "c":
        _refuse_kind(column, array.dtype)
    floats = torch.from_numpy(_checked_astype(column, array, np.dtype(np.float32), copy=True))
    # Versions of torch differ in what becomes of numbers out of range: infinite, NaN, the largest.
    limits = torch.finfo(column.dtype.torch)
    lost = ((floats < limits.min) | (floats > limits.max)) & floats.isfinite()
    if lost.any():
        _refuse_range(column, floats[lost][0].item(), array.dtype)
    return _bits(floats.to(column.dtype.torch), column.dtype)


def _bits(value: Tensor, dtype: DType) -> Array:
    """The memory of a tensor of a dtype numpy lacks, as an array of its storage dtype."""
    return value.view(torch.uint8 if dtype.itemsize == 1 else torch.int16).numpy().view(dtype.numpy)


def _checked_astype(
    column: Column, array: Array, dtype: np.dtype[Any], copy: bool = False
) -> Array:
    """``astype`` that refuses finite values turning infinite."""
    if dtype.kind not in "fc" or np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype, copy=copy)
    with np.errstate(over="ignore"):  # told by what comes out, in words of our own
        result = array.astype(dtype, copy=copy)
    finite = np.isfinite(result)
    if not finite.all():
        lost = np.isfinite(array) & ~finite
        if lost.any():
            _refuse_range(column, array[lost].flat[0], array.dtype)
    return result


def _check_integers(column: Column, array: Array) -> None:
    if array.size == 0 or np.can_cast(array.dtype, column.dtype.numpy, "safe"):
        return
    low, high = _integer_range(column.dtype.numpy)
    for extreme in (int(array.min()), int(array.max())):
        if not low <= extreme <= high:
            _refuse_range(column, extreme, array.dtype)


def _integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    if dtype.kind == "b":
        return 0, 1
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _refuse_ragged(column: Column, error: Exception) -> NoReturn:
    raise SequenceError(
        f"column '{column.name}': its steps do not form one array ({error}); "
        f"give every step the shape {column.shape}",
        column=column.name,
    ) from error


def _refuse_dtype(column: Column, dtype: Any) -> NoReturn:
    raise SequenceError(
        f"column '{column.name}': holds {dtype}, declared {column.dtype}; pass numbers or bools",
        column=column.name,
        dtype=str(dtype),
    )


def _refuse_kind(column: Column, dtype: np.dtype[Any]) -> NoReturn:
    remedy = {"b": "compare it with a value", "u": "round it", "i": "round it"}.get(
        column.dtype.numpy.kind if column.dtype.exact_numpy else "f", "take its real part"
    )
    raise SequenceError(
        f"column '{column.name}': {dtype} values would lose information as {column.dtype}; "
        f"{remedy} first, or declare dtype={dtype}",
        column=column.name,
        dtype=str(dtype),
        declared=column.dtype.name,
    )


def _refuse_range(column: Column, value: Any, dtype: Any) -> NoReturn:
    raise SequenceError(
        f"column '{column.name}': {value} does not fit into {column.dtype}; "
        f"bring the values into its range, or declare dtype={dtype}",
        column=column.name,
        value=value,
        declared=column.dtype.name,
    )
