"""What a column is: name, shape and element type, validated once at construction."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from shmtable.columns.dtypes import DType, as_dtype
from shmtable.errors import SpecError

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from shmtable.columns.windows import Windows

    DTypeLike = DType | torch.dtype | npt.DTypeLike

MAX_NAME_LENGTH = 255
MAX_DIMENSIONS = 30  # numpy 1 stops at 32, and a batch of windows adds two
MAX_ROW_BYTES = 2**40


@runtime_checkable
class MapperLike(Protocol):
    """What computes a virtual column; :class:`shmtable.mappers.Mapper` is its base class.

    Attributes:
        look_ahead: rows of the target needed beyond a window's last transition.
        per_window: True when it gives one row per window instead of one per transition.
    """

    @property
    def look_ahead(self) -> int: ...

    @property
    def per_window(self) -> bool: ...

    def compute(self, windows: Windows, column: VirtualColumn) -> Tensor: ...

    def config(self) -> dict[str, Any]: ...

    def check(
        self, column: VirtualColumn, target: Column, columns: Mapping[str, Column]
    ) -> None: ...


@dataclass(frozen=True)
class Column:
    """A stored field of every transition.

    Attributes:
        name: its key in sequences and samples.
        shape: shape of one transition's value, without batch or time axes; () for a scalar.
        dtype: type of its elements; anything :func:`~shmtable.columns.dtypes.as_dtype` takes.
        first_only: samples have one row of it per window, ``(count, *shape)``: that of the
            window's first transition. For a recurrent network's state, of which a window needs
            the one it starts from.

    Raises:
        SpecError: name, shape, dtype or switch that cannot be.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    first_only: bool = field(default=False, kw_only=True)

    if TYPE_CHECKING:  # any spelling is taken, one is kept

        def __init__(
            self,
            name: str,
            shape: Iterable[int] | int,
            dtype: DTypeLike,
            *,
            first_only: bool = False,
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _checked_name(self.name))
        object.__setattr__(self, "shape", _checked_shape(self.name, self.shape))
        object.__setattr__(self, "dtype", _checked_dtype(self.name, self.dtype))
        if not isinstance(self.first_only, bool):
            raise SpecError(
                f"column '{self.name}': first_only is {self.first_only!r}; give True or False",
                column=self.name,
            )
        if self.row_bytes > MAX_ROW_BYTES:
            raise SpecError(
                f"column '{self.name}': one row of shape {self.shape} and dtype {self.dtype} "
                f"takes {self.row_bytes} bytes, at most {MAX_ROW_BYTES} are possible; "
                "give a smaller shape",
                column=self.name,
                row_bytes=self.row_bytes,
            )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def per_window(self) -> bool:
        """Whether a sample has one row of it per window, instead of one per transition."""
        return self.first_only

    @property
    def copied_from(self) -> tuple[str, int] | None:
        """The stored column whose rows it is as they are, and how many steps later; else None."""
        return None if self.first_only else (self.name, 0)

    def gather(self, windows: Windows) -> Tensor:
        """Copy or compute the column for one batch: [B * L, *shape], or [B, *shape] per window."""
        if self.first_only:
            return windows.gather_first(self.name)
        return windows.gather(self.name)


@dataclass(frozen=True)
class TagColumn(Column):
    """A field with one value per sequence; a sample has one row of it per window."""

    first_only: bool = field(default=False, init=False, repr=False)

    if TYPE_CHECKING:

        def __init__(self, name: str, shape: Iterable[int] | int, dtype: DTypeLike) -> None: ...

    @property
    def per_window(self) -> bool:
        """True."""
        return True

    @property
    def copied_from(self) -> None:
        """None: it has no rows."""
        return None

    def gather(self, windows: Windows) -> Tensor:
        """See ``Column``."""
        return windows.gather_tags(self.name)


@dataclass(frozen=True)
class VirtualColumn(Column):
    """A field computed at sampling from a stored column; it takes no memory.

    Attributes:
        target_name: the stored column it is computed from.
        mapper: what computes it: a mapper, its class, or a function of no arguments that makes
            one (``NextElementMapper``, ``NextElementMapper.with_only_last``, ...).
    """

    target_name: str
    mapper: MapperLike
    first_only: bool = field(default=False, init=False, repr=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            name: str,
            shape: Iterable[int] | int,
            dtype: DTypeLike,
            target_name: str,
            mapper: Any,
        ) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.target_name, str):
            raise SpecError(
                f"column '{self.name}': target_name is {self.target_name!r}; "
                "give the name of a stored column",
                column=self.name,
            )
        object.__setattr__(self, "mapper", _made_mapper(self.name, self.mapper))

    @property
    def per_window(self) -> bool:
        """As the mapper says."""
        return self.mapper.per_window

    @property
    def copied_from(self) -> tuple[str, int] | None:
        """As the mapper says; one that is no ``Mapper`` need not say anything."""
        shift = getattr(self.mapper, "shift", None)
        later = shift() if callable(shift) else None  # else a setting of that name, of their own
        return None if later is None else (self.target_name, later)

    def gather(self, windows: Windows) -> Tensor:
        """See ``Column``."""
        return self.mapper.compute(windows, self)


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME_LENGTH:
        raise SpecError(
            f"column name is {name!r}; give a string of 1 to {MAX_NAME_LENGTH} printable "
            "characters",
            name=repr(name),
        )
    return str(name)


def _checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    try:
        if isinstance(shape, (str, bytes)):
            raise TypeError
        sizes = tuple(shape) if isinstance(shape, Iterable) else (shape,)
        dims = tuple(operator.index(size) for size in sizes)
    except TypeError:
        raise SpecError(
            f"column '{name}': shape is {shape!r}; give a tuple of integers, () for a scalar",
            column=name,
        ) from None
    if any(size < 1 for size in dims) or len(dims) > MAX_DIMENSIONS:
        raise SpecError(
            f"column '{name}': shape is {dims}; give at most {MAX_DIMENSIONS} sizes, each at "
            "least 1, () for a scalar",
            column=name,
            shape=dims,
        )
    return dims


def _checked_dtype(name: str, dtype: Any) -> DType:
    try:
        return as_dtype(dtype)
    except SpecError as error:
        raise SpecError(f"column '{name}': {error}", column=name, **error.fields) from None


def _made_mapper(name: str, mapper: Any) -> MapperLike:
    made = mapper
    if isinstance(mapper, type) or not isinstance(mapper, MapperLike):
        try:
            made = mapper()
        except TypeError as error:
            raise SpecError(
                f"column '{name}': mapper {mapper!r} cannot be made without arguments ({error}); "
                "give a mapper, its class, or a function of no arguments",
                column=name,
            ) from error
    if not isinstance(made, MapperLike) or isinstance(made, type):
        raise SpecError(
            f"column '{name}': {made!r} is no mapper; derive it from shmtable.mappers.Mapper",
            column=name,
        )
    if not isinstance(made.look_ahead, int) or made.look_ahead < 0:
        raise SpecError(
            f"column '{name}': its mapper looks {made.look_ahead!r} steps ahead; "
            "look_ahead is an integer of at least 0",
            column=name,
        )
    return made
