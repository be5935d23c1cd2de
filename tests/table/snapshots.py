"""The whole content of a table, to tell whether a call has changed anything."""

from __future__ import annotations

from typing import Any

from shmtable import ArrayMemoryTable


def content(table: ArrayMemoryTable) -> dict[int, dict[str, list[Any]]]:
    """Every sequence, by identity in order of insertion."""
    return {
        identity: {name: column.tolist() for name, column in table.sequence(identity).items()}
        for identity in table.identities().tolist()
    }


def everything(table: ArrayMemoryTable) -> dict[str, Any]:
    """Content, counts and findings."""
    return {
        "content": content(table),
        "order": table.identities().tolist(),
        "stats": table.stats(),
        "full": table.full(),
        "findings": table.check(),
    }
