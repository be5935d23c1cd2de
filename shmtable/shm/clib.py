"""The C library's functions, looked up when first needed.

Nothing here fails at import: where a symbol is missing the answer is None and the caller takes
its portable way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

Function = Callable[..., int]


@cache
def _library(keep_gil: bool) -> ctypes.CDLL | None:
    try:
        return ctypes.PyDLL(None) if keep_gil else ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):
        return None


@cache
def function(
    name: str,
    *argtypes: Any,
    keep_gil: bool = False,
    restype: Any = ctypes.c_int,
) -> Function | None:
    """One C function with its types bound, or None where the platform has no such symbol.

    Args:
        name: the symbol.
        argtypes: ctypes types of its arguments.
        keep_gil: do not release the interpreter's lock around the call; only for calls that
            never block.
        restype: ctypes type of its result.
    """
    library = _library(keep_gil)
    if library is None:
        return None
    try:
        # Item access makes a fresh function object, so that types set here stay ours.
        found = library[name]
    except AttributeError:
        return None
    found.argtypes = argtypes
    found.restype = restype
    return found


class Timespec(ctypes.Structure):
    """A struct timespec of a 64-bit system."""

    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]
