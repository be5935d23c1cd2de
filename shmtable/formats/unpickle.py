"""Reading pickles without executing anything they name.

A pickle is a program that calls what it names. Here a name is only looked up in the table below,
and what is found there are stand-ins that keep what they are given. Everything else is refused,
by name. The pure Python unpickler is used because it can be taken apart: instructions that a
table's file has no need of are removed, keys are numbers and texts, and a large memo index costs
nothing (the C unpickler allocates up to it).
"""

from __future__ import annotations

import collections
import io
import pickle
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from shmtable.errors import FileDamagedError, FileUnsafeError

# What Legacy files name of the package that they come from; mapped to what we have, or kept for
# messages. Modules are not compared below the package, as they moved between its versions.
_PACKAGE = "emote.memory."
_CLASSES = frozenset(
    {
        "Column",
        "TagColumn",
        "VirtualColumn",
        "NextElementMapper",
        "NextNElementWrapper",
        "SyntheticDones",
        "LastWrapper",
        "VirtualStorage",
        "UniformSampleStrategy",
        "UniformEjectionStrategy",
        "FifoSampleStrategy",
        "FifoEjectionStrategy",
        "CoverageBasedSampleStrategy",
        "CoverageBasedEjectionStrategy",
    }
)
_STORAGES = frozenset({"BaseStorage", "TagStorage"})
_VALUES = frozenset({"bool", "int", "float", "complex"})
_DTYPE_NAME = re.compile(r"[biufcO?][0-9]{0,2}")


class Named:
    """Stands in for a class, function or object: its name, and what was to be stored in it."""

    name = ""

    def __new__(cls, *_: Any) -> Named:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class Storage(dict[Any, Any]):
    """Stands in for a storage: sequences by identity."""

    def __setstate__(self, state: Any) -> None:
        """Its fields repeat the column's."""


class DTypeStandIn:
    """Stands in for a numpy dtype."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self._name = name
        self._order = "="

    def __setstate__(self, state: Any) -> None:
        self._order = state[1] if isinstance(state, tuple) and len(state) > 1 else "?"

    def dtype(self) -> np.dtype[Any]:
        """The dtype itself, of plain numbers or "O"; ValueError for any other."""
        name, order = self._name, self._order
        if type(name) is not str or not _DTYPE_NAME.fullmatch(name) or order not in tuple("<>=|"):
            raise ValueError(f"dtype {name!r:.50} is not one of plain numbers")
        return np.dtype(name if name[0] == "O" else order + name)


class ArrayStandIn:
    """Stands in for a numpy array: what its pickle stores in it."""

    def __init__(self, *_: Any) -> None:
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def items(self) -> list[Any]:
        """The elements of an array of objects; ValueError if it is another."""
        _, _, dtype, _, data = self._fields()
        if dtype.dtype().kind != "O" or type(data) is not list:
            raise ValueError("it holds no objects")
        return data

    def array(self) -> npt.NDArray[Any]:
        """The array, of plain numbers; ValueError if it is another."""
        _, shape, standin, fortran, data = self._fields()
        dtype = standin.dtype()
        if dtype.kind == "O" or type(data) is not bytes:
            raise ValueError("it holds objects")
        array: npt.NDArray[Any] = np.frombuffer(data, dtype)
        return array.reshape(shape, order="F" if fortran else "C")

    def _fields(self) -> tuple[Any, ...]:
        state = self._state
        if type(state) is not tuple or len(state) != 5 or type(state[2]) is not DTypeStandIn:
            raise ValueError("it is incomplete")
        if type(state[1]) is not tuple or not all(type(size) is int for size in state[1]):
            raise ValueError("its shape is no tuple of integers")
        return state


def _reconstruct(*_: Any) -> ArrayStandIn:
    return ArrayStandIn()


# Not part of the module's documented face, but as old as it, and the same in every version.
_Python: Any = pickle._Unpickler  # type: ignore[attr-defined,unused-ignore]


class _Unpickler(_Python):  # type: ignore[misc]
    """See the module."""

    dispatch: dict[int, Any] = dict(_Python.dispatch)

    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(io.BytesIO(data))
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        first = name.partition(".")[0]
        if module.startswith(_PACKAGE) and first in _CLASSES:
            return type("Named", (Named,), {"name": name})
        if module.startswith(_PACKAGE) and name in _STORAGES:
            return Storage
        if (module, name) == ("collections", "deque"):
            return collections.deque
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "builtins" and name in _VALUES:
            return type("Named", (Named,), {"name": name})
        if module == "numpy" and name == "dtype":
            return DTypeStandIn
        if module == "numpy" and name == "ndarray":
            return ArrayStandIn
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct
        if module == "numpy" and re.fullmatch(r"bool_?|u?int\d+|float\d+|complex\d+", name):
            return type("Named", (Named,), {"name": name})
        raise FileUnsafeError(
            f"{self._where}: names {module}.{name}, which a table's file has no need of; nothing "
            "was executed. If you trust where it comes from, store it again as V1 there",
            module=module,
            name=name,
        )

    def load_setitem(self) -> None:
        self._refuse_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        self._refuse_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        self._refuse_keys(self.stack[::2])
        super().load_dict()

    @staticmethod
    def _refuse_keys(keys: list[Any]) -> None:
        # Hashing a tuple of tuples of ... may take for ever.
        if not all(type(key) in (int, str) for key in keys):
            raise ValueError("a key is neither a number nor a text")

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict


_UNUSED = (
    *("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ_EX"),
    *("NEXT_BUFFER", "READONLY_BUFFER", "EMPTY_SET", "ADDITEMS", "FROZENSET"),
)
for _name in _UNUSED:
    _Unpickler.dispatch.pop(getattr(pickle, _name)[0])


def unpickled(data: bytes, where: str) -> Any:
    """What a pickle holds, in stand-ins and plain values.

    Args:
        data: the pickle.
        where: file and member, for messages.

    Raises:
        FileUnsafeError: it names something that is not admitted.
        FileDamagedError: it is no pickle, or uses instructions that a table's file does not need.
    """
    try:
        return _Unpickler(data, where).load()
    except FileUnsafeError:
        raise
    except Exception as error:  # noqa: BLE001 - any, from bytes that may be anything
        raise FileDamagedError(
            f"{where}: cannot be unpickled ({type(error).__name__}: {str(error)[:100]}); copy the "
            "file anew, or restore an older one"
        ) from None
