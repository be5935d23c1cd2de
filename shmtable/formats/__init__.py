"""What a table's file says, and how to read and write it; knows files, and no tables."""

from __future__ import annotations

from shmtable.formats.base import (
    PIECE_BYTES,
    Content,
    FileColumn,
    Part,
    Progress,
    Rows,
    Strategy,
    TableSerializationVersion,
)
from shmtable.formats.files import opened
from shmtable.formats.inspect import Description, convert, describe, verify

__all__ = [
    "PIECE_BYTES",
    "Content",
    "Description",
    "FileColumn",
    "Part",
    "Progress",
    "Rows",
    "Strategy",
    "TableSerializationVersion",
    "convert",
    "describe",
    "opened",
    "verify",
]
