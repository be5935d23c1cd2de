"""Whether a file's content is this table's, and which of it the table holds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from shmtable.columns import Column
from shmtable.errors import FileMismatchError
from shmtable.formats import Content, Part
from shmtable.index import fields as f
from shmtable.protocols.core import Core
from shmtable.types import Int64Array

_LEVEL = 6  # warnings point at whoever called restore() of the table


@dataclass(frozen=True, eq=False)
class Fitting:
    """A file's sequences as the table takes them.

    Attributes:
        first: those before it are left out: the table is too small.
        lengths, spans: int64 [n], for all sequences of the file, as in ``Prepared``.
        extras: likewise.
        parts: by name, for each stored column and tag of the table; None where the file has none.
        counts: by name, int64 [n], rows taken of each sequence.
    """

    first: int
    lengths: Int64Array
    spans: Int64Array
    extras: list[int]
    parts: dict[str, Part | None]
    counts: dict[str, Int64Array]


def fit(core: Core, content: Content, strict: bool) -> Fitting:
    """Compare a file with the table.

    Args:
        core: the table.
        content: of the file.
        strict: refuse missing and additional columns, instead of warning and going on without.

    Raises:
        FileMismatchError: the columns are not this table's.
    """
    _warn_strategies(core, content)
    parts = _matched(core, content, strict)
    schema = core.schema
    key = parts[schema.length_key]
    if key is None:  # then the file's own tells
        lengths = content.row_counts
    else:
        lengths = key.counts - schema.look_ahead[schema.length_key]
    if len(lengths) and lengths.min() < 1:
        _refuse(content, schema.length_key, "has sequences without a transition of this table's")
    spans, extras = lengths.copy(), [0] * len(lengths)
    counts = {column.name: np.ones_like(lengths) for column in schema.tags}
    for place, column in enumerate(schema.stored):
        need = lengths + schema.look_ahead[column.name]
        part = parts[column.name]
        found = need if part is None else _counted(core, content, part, need, strict)
        for index in np.flatnonzero(found > need).tolist():
            extras[index] |= 1 << place  # of more columns than an int64 has bits
        spans = np.maximum(spans, found)
        counts[column.name] = found
    first = _first_that_fits(core, content, lengths)
    return Fitting(first, lengths, spans, extras, parts, counts)


def _counted(
    core: Core, content: Content, part: Part, need: Int64Array, strict: bool
) -> Int64Array:
    """Rows to take of each sequence: what is needed, or one more where that may be."""
    name = part.column.name
    beyond = part.counts - need
    most = 0 if core.schema.look_ahead[name] else 1
    if len(beyond) and beyond.min() < 0:
        place = int(beyond.argmin())
        _refuse(
            content,
            name,
            f"has {part.counts[place]} rows for sequence {content.identities[place]}, this table "
            f"needs {need[place]} (its virtual columns look {core.schema.look_ahead[name]} ahead)",
        )
    if len(beyond) and beyond.max() > most:
        place = int(beyond.argmax())
        what = (
            f"has {part.counts[place]} rows for sequence {content.identities[place]}, this table "
            f"takes {need[place]}"
        )
        if strict:
            _refuse(content, name, f"{what}; or pass strict=False to leave the others out")
        _warn(f"{content.path}: column '{name}' {what}; the others are left out")
    return np.where(beyond > most, need, part.counts)


def _matched(core: Core, content: Content, strict: bool) -> dict[str, Part | None]:
    schema = core.schema
    kinds: dict[str, tuple[str, Column]] = {c.name: ("Column", c) for c in schema.stored}
    kinds.update({c.name: ("TagColumn", c) for c in schema.tags})
    missing = [name for name in kinds if name not in content.parts]
    more = [name for name in content.parts if name not in kinds]
    for names, what, then in (
        (missing, "lacks", "which become zeros"),
        (more, "has besides this table's", "which are left out"),
    ):
        if names and strict:
            raise FileMismatchError(
                f"{content.path} {what} the columns {', '.join(names)}; make the table with the "
                f"file's columns ({', '.join(content.parts)}), or pass strict=False to go on",
                path=content.path,
                columns=names,
            )
        if names:
            _warn(f"{content.path} {what} the columns {', '.join(names)}, {then}")
    for name, (kind, column) in kinds.items():
        part = content.parts.get(name)
        if part is None:
            continue
        found = part.column
        if found.kind != kind:
            _refuse(content, name, f"is a {found.kind}, here it is a {kind}")
        if found.dtype != column.dtype or found.shape != column.shape:
            _refuse(
                content,
                name,
                f"has dtype {found.dtype} and shape {found.shape}, here {column.dtype} and "
                f"{column.shape}",
            )
    return {name: content.parts.get(name) for name in kinds}


def _first_that_fits(core: Core, content: Content, lengths: Int64Array) -> int:
    """Where the newest sequences begin that the table holds together."""
    words = core.arena.words
    maxlen, most = words[f.MAXLEN], words[f.MAX_SEQUENCES]
    held = np.cumsum(lengths[::-1])
    count = min(int(np.searchsorted(held, maxlen, side="right")), most)
    first = len(lengths) - count
    if first:
        kept = int(lengths[first:].sum())
        _warn(
            f"{content.path} has {len(lengths)} sequences with {int(lengths.sum())} transitions "
            f"(its maxlen was {content.maxlen}); this table, with maxlen {maxlen} and "
            f"max_sequences {most}, takes the newest {count} with {kept}: {first} sequences are "
            "left out"
        )
    return first


def _warn_strategies(core: Core, content: Content) -> None:
    for role, strategy in (("sampler", core.sampler), ("ejector", core.ejector)):
        there, here = content.strategies[role].type, type(strategy).__name__
        if there != here:
            _warn(
                f"{content.path} was stored with the {role} {there}, this table has {here}: its "
                "sequences are restored, what the other one kept of them is not"
            )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=_LEVEL)


def _refuse(content: Content, name: str, what: str) -> NoReturn:
    raise FileMismatchError(
        f"{content.path}: column '{name}' {what}; make the table with the file's columns",
        path=content.path,
        column=name,
    )
