"""A file's description, for programs and for people."""

from __future__ import annotations

from typing import Any

from shmtable.cli.text import aligned
from shmtable.formats import Description

_BAR_WIDTH = 40


def as_json(found: Description) -> dict[str, Any]:
    """Everything in it, in types that JSON knows."""
    return {
        "path": found.path,
        "version": found.version.name,
        "maxlen": found.maxlen,
        "sampler": found.sampler,
        "ejector": found.ejector,
        "length_key": found.length_key,
        "columns": [
            {
                "name": column.name,
                "kind": column.kind,
                "dtype": column.dtype.name,
                "shape": list(column.shape),
                "target_name": column.target_name,
            }
            for column in found.columns
        ],
        "sequences": found.sequences,
        "transitions": found.transitions,
        "lengths": [
            {"from": least, "to": most, "sequences": count} for least, most, count in found.lengths
        ],
        "data_bytes": found.data_bytes,
        "file_bytes": found.file_bytes,
    }


def one_line(found: dict[str, Any]) -> str:
    """Format, sequences, transitions and bytes."""
    return (
        f"{found['version']}, {found['sequences']:,} sequences with "
        f"{found['transitions']:,} transitions, {found['data_bytes']:,} bytes of rows"
    )


def page(found: dict[str, Any]) -> str:
    """All of it, in several tables."""
    lines = [
        f"{found['path']}: {one_line(found)}, {found['file_bytes']:,} bytes in all",
        f"stored from a table with maxlen {found['maxlen']:,}, {found['sampler']} and "
        f"{found['ejector']}",
        "",
    ]
    columns = [("column", "kind", "dtype", "shape", "")]
    for column in found["columns"]:
        shape = str(tuple(column["shape"]))
        target = f"computed from {column['target_name']}" if column["target_name"] else ""
        if column["name"] == found["length_key"]:
            target = "tells a sequence's length"
        columns.append((column["name"], column["kind"], column["dtype"], shape, target))
    lines += aligned(columns)
    if found["lengths"]:
        most = max(entry["sequences"] for entry in found["lengths"])
        lengths = [("length", "sequences", "")]
        for entry in found["lengths"]:
            ends = f"{entry['from']:,} to {entry['to']:,}" if entry["from"] > 1 else "1"
            bar = "#" * -(-_BAR_WIDTH * entry["sequences"] // most)
            lengths.append((ends, f"{entry['sequences']:,}", bar))
        lines += ["", *aligned(lengths)]
    return "\n".join(lines)
