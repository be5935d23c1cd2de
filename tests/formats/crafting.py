"""Taking a table's file apart and putting it together again, wrong."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shmtable import ArrayMemoryTable

Members = dict[str, bytes]


def members(path: Path) -> Members:
    """Every member's content."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, content: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """A file of these members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def configured(content: Members, **changes: Any) -> Members:
    """With other values in the configuration; None leaves one out."""
    found = {**json.loads(content["configuration.json"]), **changes}
    text = json.dumps({key: value for key, value in found.items() if value is not None})
    return {**content, "configuration.json": text.encode()}


def array(data: bytes) -> Any:
    """The array in a member."""
    return np.load(io.BytesIO(data), allow_pickle=False)


def npy(value: Any, **options: Any) -> bytes:
    """A member with an array in it."""
    file = io.BytesIO()
    np.save(file, value, **options)
    return file.getvalue()


def content_of(table: ArrayMemoryTable) -> dict[int, dict[str, list[Any]]]:
    """Everything in a table, to be compared."""
    return {
        identity: {name: rows.float().tolist() for name, rows in table.sequence(identity).items()}
        for identity in table.identities().tolist()
    }
