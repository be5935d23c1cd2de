"""Puts stand-ins in the place of all the shared memory that an open table's parts refer to.

The product knows nothing of this. In a process of its own, :func:`watch` walks through the parts
of a table and replaces every memoryview and every writable array of its arena by one that looks
the same and reports each store to a :class:`~tests.chaos.stores.Stores`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from operator import setitem
from typing import Any

import numpy as np

from shmtable.protocols import Core
from shmtable.shm.arena import Arena
from tests.chaos.stores import Array, Range, Shadow, Stores


class Words:
    """Stands in for a memoryview."""

    def __init__(self, raw: memoryview, name: str, stores: Stores) -> None:
        self.raw = raw
        self.name = name
        self._stores = stores

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, key: Any) -> Any:
        return self.raw[key]

    def cast(self, form: str) -> Words:
        """The same memory as other words."""
        return Words(self.raw.cast(form), self.name, self._stores)  # type: ignore[call-overload]

    def __setitem__(self, key: int, value: int) -> None:
        target = f"{self.name}[{key}] = {value}"
        self._stores.before(target)
        self.raw[key] = value
        self._stores.after(target)


class Watched(np.ndarray[Any, Any]):
    """Stands in for an array of the arena; so do its views, and its copies are plain arrays."""

    stores: Stores
    name: str
    bounds: Range

    def __array_finalize__(self, source: Any) -> None:
        for attribute in ("stores", "name", "bounds"):
            setattr(self, attribute, getattr(source, attribute, None))

    def is_shared(self) -> bool:
        """Whether these are the arena's own bytes."""
        return self.bounds is not None and _lies_in(self, self.bounds)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(found, Watched) and not found.is_shared():
            return found.view(np.ndarray)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        plain = self.view(np.ndarray)
        if not self.is_shared():
            plain[key] = value
            return
        elements = _Elements(plain, key, value)
        if not elements.count:
            return
        name = f"{self.name}[{_brief(key)}], {elements.count} elements"
        self.stores.before(name)
        if elements.count > 1:
            middle = elements.count // 2
            for part, first, last in (
                ("first half", 0, middle),
                ("last half", middle, elements.count),
            ):
                if self.stores.next_is_fatal():
                    elements.store(first, last)
                self.stores.after(f"{name}, {part}")
        plain[key] = value
        self.stores.after(name)

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **kwargs: Any
    ) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, Watched) else x for x in inputs]
        if method == "at":
            target, where = inputs[0], inputs[1]
            if isinstance(target, Watched) and target.is_shared():
                touched = np.unique(where)
                changed = plain[0].copy()
                ufunc.at(changed, *plain[1:], **kwargs)
                target[touched] = changed[touched]
                return None
        shared = [x for x in out if isinstance(x, Watched) and x.is_shared()]
        if not shared:
            kwargs.update({"out": out} if out else {})
            return getattr(ufunc, method)(*plain, **kwargs)
        assert len(out) == 1
        out[0][...] = getattr(ufunc, method)(*plain, **kwargs)
        return out[0]


class _Elements:
    """The elements that ``array[key] = value`` stores, one after the other."""

    def __init__(self, array: Array, key: Any, value: Any) -> None:
        if isinstance(key, (int, slice, type(Ellipsis))):
            self._target, self._places = array[key : key + 1] if _is_int(key) else array[key], None
            shape: tuple[int, ...] = np.shape(self._target)
        else:  # a fancy key or a mask
            found = np.arange(array.size).reshape(array.shape)[key]
            self._target, self._places = array, np.asarray(found).reshape(-1)
            shape = np.shape(found)
        self._values = np.broadcast_to(value, shape).reshape(-1)
        self.count = len(self._values)

    def store(self, first: int, last: int) -> None:
        """Store those from ``first`` to ``last`` only."""
        flat = self._target.flat
        if self._places is None:
            flat[first:last] = self._values[first:last]
        else:
            flat[self._places[first:last]] = self._values[first:last]


class _Numpy:
    """Stands in for numpy in the product's modules: ``frombuffer`` must see through ``Words``."""

    def __init__(self, wrap: Callable[[Array, str], Array]) -> None:
        self._wrap = wrap

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def frombuffer(self, buffer: Any, *more: Any) -> Array:
        if isinstance(buffer, Words):
            return self._wrap(np.frombuffer(buffer.raw, *more), buffer.name)
        return np.frombuffer(buffer, *more)


def watch(core: Core, stores: Stores) -> None:
    """From now on every store of this process into the table's arena goes through ``stores``.

    There is no way back: only for a process that ends afterwards.
    """
    bounds = core.arena.memory.data_ptr(), core.arena.total_bytes

    def wrap(array: Array, name: str) -> Watched:
        watched = array.view(Watched)
        watched.stores, watched.name, watched.bounds = stores, name, bounds
        return watched

    def stand_in(value: Any, name: str) -> Any:
        if isinstance(value, memoryview) and not value.readonly:
            if _lies_in(np.frombuffer(value, np.uint8), bounds):
                return Words(value, name, stores)
        elif type(value) is np.ndarray and value.flags.writeable and _lies_in(value, bounds):
            return wrap(value, name)
        return None

    _replace(core, stand_in, set())
    shim = _Numpy(wrap)
    for name, module in list(sys.modules.items()):
        if name.startswith("shmtable.") and getattr(module, "np", None) is np:
            module.np = shim  # type: ignore[attr-defined]


def watch_from_birth(stores: Stores) -> None:
    """Watch the arenas that this process maps from now on, their headers being written included.

    There is no way back.
    """
    open_core = Core.__init__

    def setting(arena: Arena, name: str, value: Any) -> None:
        watched = Words(value, "header", stores) if name == "words" else value
        object.__setattr__(arena, name, watched)

    def opening(core: Core, *args: Any, **kwargs: Any) -> None:
        open_core(core, *args, **kwargs)
        watch(core, stores)

    Arena.__setattr__ = setting  # type: ignore[method-assign, assignment]
    Core.__init__ = opening  # type: ignore[method-assign]


def _replace(owner: Any, stand_in: Callable[[Any, str], Any], seen: set[int]) -> None:
    """Walk through everything that belongs to ``owner`` and put stand-ins in place."""
    if id(owner) in seen or isinstance(owner, Shadow):
        return
    seen.add(id(owner))
    for name, value, put in list(_parts(owner)):
        found = stand_in(value, name.lstrip("_"))
        if found is not None:
            put(found)
        elif _is_ours(value) or isinstance(value, (dict, list, tuple)):
            _replace(value, stand_in, seen)


def _parts(owner: Any) -> Iterator[tuple[str, Any, Callable[[Any], None]]]:
    if isinstance(owner, dict):
        for key, value in owner.items():
            yield str(key), value, partial(setitem, owner, key)
    elif isinstance(owner, list):
        for place, value in enumerate(owner):
            yield f"{place}", value, partial(setitem, owner, place)
    elif isinstance(owner, tuple):
        for value in owner:
            yield "tuple", value, _cannot
    else:
        names = {name for cls in type(owner).__mro__ for name in getattr(cls, "__slots__", ())}
        for name in [*names, *getattr(owner, "__dict__", ())]:
            if hasattr(owner, name) and not name.startswith("__"):
                yield name, getattr(owner, name), partial(object.__setattr__, owner, name)


def _cannot(_: Any) -> None:
    raise NotImplementedError("shared memory in a tuple: teach tests.chaos.watch")


def _is_ours(value: Any) -> bool:
    return type(value).__module__.startswith("shmtable.") and not isinstance(value, type)


def _is_int(key: Any) -> bool:
    return isinstance(key, int)


def _lies_in(array: Array, bounds: Range) -> bool:
    address = array.__array_interface__["data"][0]
    return bounds[0] <= address < bounds[0] + bounds[1]


def _brief(key: Any) -> str:
    if isinstance(key, slice):
        return f"{key.start}:{key.stop}"
    return "..." if isinstance(key, np.ndarray) or key is Ellipsis else str(key)[:40]
