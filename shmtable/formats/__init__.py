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

__all__ = [
    "PIECE_BYTES",
    "Content",
    "FileColumn",
    "Part",
    "Progress",
    "Rows",
    "Strategy",
    "TableSerializationVersion",
    "opened",
]
