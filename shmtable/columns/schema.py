"""All columns of one table together: the rules between them, sizes, and the JSON form."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shmtable.columns.groups import Place, places_of
from shmtable.columns.spec import Column, TagColumn, VirtualColumn
from shmtable.errors import SpecError


@dataclass(frozen=True)
class Schema:
    """The columns of one table; make it with :meth:`build`, which checks them.

    Attributes:
        columns: every column, in declared order.
        stored: those with one row per transition.
        tags: those with one row per sequence.
        virtual: those computed at sampling.
        length_key: name of the stored column whose rows say how long a sequence is.
        look_ahead: for each stored column, the rows it needs beyond a sequence's length.
        places: for each stored column, where its rows lie.
        copied: columns that are rows of a stored column as they are: which, and how many steps
            later. No two of them are the same rows.
        computed: all other columns, each of which is gathered by itself.
        in_order: None for each column's name, in declared order.
    """

    columns: tuple[Column, ...]
    stored: tuple[Column, ...]
    tags: tuple[TagColumn, ...]
    virtual: tuple[VirtualColumn, ...]
    length_key: str
    look_ahead: dict[str, int]
    places: dict[str, Place]
    copied: dict[str, tuple[str, int]]
    computed: tuple[Column, ...]
    in_order: dict[str, None]

    @classmethod
    def build(
        cls, columns: Iterable[Column], length_key: str, *, reserved: Collection[str] = ()
    ) -> Schema:
        """Check the columns against each other.

        Args:
            columns: in the order samples list them.
            length_key: name of a stored column.
            reserved: names no column may have, because samples carry something else there.

        Raises:
            SpecError: no stored column, a name used twice or reserved, a target or length key
                that is not a stored column, or a mapper that does not fit its target.
        """
        columns = tuple(columns)
        by_name = _unique_names(columns, reserved)
        tags = tuple(column for column in columns if isinstance(column, TagColumn))
        virtual = tuple(column for column in columns if isinstance(column, VirtualColumn))
        stored = tuple(
            column for column in columns if not isinstance(column, (TagColumn, VirtualColumn))
        )
        names = [column.name for column in stored]
        if length_key not in names:
            raise SpecError(
                f"length_key is {length_key!r}, no stored column; give one: "
                f"{', '.join(names) or 'there is none'}",
                length_key=length_key,
            )
        look_ahead = dict.fromkeys(names, 0)
        readable = {column.name: column for column in (*stored, *tags)}
        for column in virtual:
            name = column.target_name
            if name not in look_ahead:
                raise SpecError(
                    f"column '{column.name}': its target {name!r} is not a stored column; "
                    f"give one of {', '.join(names)}",
                    column=column.name,
                    target_name=name,
                )
            column.mapper.check(column, by_name[name], readable)
            _check_copied(column, by_name[name])
            look_ahead[name] = max(look_ahead[name], column.mapper.look_ahead)
        copied = _copied(columns)
        return cls(
            columns=columns,
            stored=stored,
            tags=tags,
            virtual=virtual,
            length_key=length_key,
            look_ahead=look_ahead,
            places=places_of(stored, look_ahead),
            copied=copied,
            computed=tuple(column for column in columns if column.name not in copied),
            in_order={column.name: None for column in columns},
        )

    @property
    def max_look_ahead(self) -> int:
        """The most rows any stored column needs beyond a sequence's length."""
        return max(self.look_ahead.values())

    @property
    def regions(self) -> dict[str, int]:
        """The memory that the stored columns' rows lie in: name, and bytes of a row there."""
        return {place.region: place.stride for place in self.places.values()}

    @property
    def row_bytes(self) -> int:
        """Bytes of one transition in all stored columns."""
        return sum(column.row_bytes for column in self.stored)

    @property
    def slot_bytes(self) -> int:
        """Bytes of one sequence's tags."""
        return sum(column.row_bytes for column in self.tags)

    def to_json(self) -> dict[str, Any]:
        """Everything needed to build it again, in types that JSON knows.

        Mappers are recorded by class name and configuration, never by code.
        """
        return {
            "length_key": self.length_key,
            "columns": [_column_to_json(column) for column in self.columns],
        }

    @classmethod
    def from_json(cls, obj: Any, mappers: Mapping[str, Any]) -> Schema:
        """Build it again from :meth:`to_json`'s form, believing nothing in it.

        Args:
            obj: what a JSON parser returned.
            mappers: class by name; each has ``from_config(dict)``.

        Raises:
            SpecError: anything malformed, or a mapper this program does not know.
        """
        length_key, columns = _fields("schema", obj, length_key=str, columns=list)
        return cls.build([_column_from_json(entry, mappers) for entry in columns], length_key)


def _unique_names(columns: tuple[Column, ...], reserved: Collection[str]) -> dict[str, Column]:
    by_name: dict[str, Column] = {}
    for column in columns:
        if not isinstance(column, Column):
            raise SpecError(
                f"{column!r} is no column; give Column, TagColumn or VirtualColumn objects, one "
                "by one, or a list of them as columns="
            )
        if column.name in by_name:
            raise SpecError(
                f"column '{column.name}' is declared twice; give each column its own name",
                column=column.name,
            )
        if column.name in reserved:
            raise SpecError(
                f"column '{column.name}': samples of this table carry something else under this "
                "name; choose another",
                column=column.name,
            )
        by_name[column.name] = column
    return by_name


def _check_copied(column: VirtualColumn, target: Column) -> None:
    if column.copied_from is None:
        return
    shift, most = column.copied_from[1], column.mapper.look_ahead
    if not 0 <= shift <= most:
        raise SpecError(
            f"column '{column.name}': its mapper gives rows of {shift} steps later; it may give "
            f"those of 0 to {most} steps later, as far as it looks ahead",
            column=column.name,
        )
    if column.shape != target.shape or column.dtype != target.dtype:
        raise SpecError(
            f"column '{column.name}': its mapper gives rows of '{target.name}' as they are, shape "
            f"{target.shape} and dtype {target.dtype}; it has {column.shape} and {column.dtype}: "
            "declare both alike",
            column=column.name,
            target_name=target.name,
        )


def _copied(columns: tuple[Column, ...]) -> dict[str, tuple[str, int]]:
    # Columns that share a copy must not have the same elements in it: of two, one is apart.
    sources = {column.copied_from: column.name for column in reversed(columns)}
    return {name: source for source, name in reversed(sources.items()) if source is not None}


def _column_to_json(column: Column) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "kind": "Column",
        "name": column.name,
        "shape": list(column.shape),
        "dtype": column.dtype.name,
    }
    if isinstance(column, TagColumn):
        entry["kind"] = "TagColumn"
    elif isinstance(column, VirtualColumn):
        entry["kind"] = "VirtualColumn"
        entry["target_name"] = column.target_name
        entry["mapper"] = type(column.mapper).__name__
        entry["config"] = column.mapper.config()
    else:
        entry["first_only"] = column.first_only
    return entry


def _column_from_json(entry: Any, mappers: Mapping[str, Any]) -> Column:
    kind = entry.get("kind") if isinstance(entry, dict) else None
    parts: dict[str, type] = {"kind": str, "name": str, "shape": list, "dtype": str}
    if kind == "VirtualColumn":
        parts.update(target_name=str, mapper=str, config=dict)
    elif kind == "Column":
        parts.update(first_only=bool)
    elif kind != "TagColumn":
        raise SpecError(
            f"column entry has kind {kind!r}; known are Column, TagColumn and VirtualColumn"
        )
    _, name, shape, dtype, *more = _fields(f"{kind} entry", entry, **parts)
    if any(type(size) is not int for size in shape):
        raise SpecError(f"column '{name}': shape is {shape!r}; it is a list of integers")
    if kind == "Column":
        return Column(name, shape, dtype, first_only=more[0])
    if kind == "TagColumn":
        return TagColumn(name, shape, dtype)
    target_name, mapper_name, config = more
    if mapper_name not in mappers:
        raise SpecError(
            f"column '{name}': mapper {mapper_name!r} is not known to this program, which knows "
            f"{', '.join(mappers)}; pass its class too",
            column=name,
            mapper=mapper_name,
        )
    return VirtualColumn(name, shape, dtype, target_name, mappers[mapper_name].from_config(config))


def _fields(what: str, obj: Any, **types: type) -> list[Any]:
    """The values of exactly these keys, each of exactly this type, in this order."""
    if not isinstance(obj, dict) or set(obj) != set(types):
        found = sorted(map(str, obj)) if isinstance(obj, dict) else type(obj).__name__
        raise SpecError(f"{what} has {found}; it is an object with {sorted(types)}")
    for key, expected in types.items():
        if type(obj[key]) is not expected:
            raise SpecError(
                f"{what}: {key} is {obj[key]!r:.100}; it is a {expected.__name__}", key=key
            )
    return [obj[key] for key in types]
