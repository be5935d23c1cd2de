"""Every table made here keeps its columns as it would on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from shmtable import table
from shmtable.columns import Backend, DeviceStorage, Schema, device_bytes
from tests.columns import placing
from tests.device.backends import FileBackend


@pytest.fixture(autouse=True)
def _on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(device: Any, directory: str | None) -> Backend | None:
        return FileBackend() if directory is None else None

    monkeypatch.setattr(table, "storage_backend", chosen)
    monkeypatch.setattr(placing, "CpuStorage", stored)


def stored(
    schema: Schema,
    rows: dict[str, Tensor],
    tags: dict[str, Tensor],
    steps_since: Callable[[Any], Any] = np.zeros_like,
) -> DeviceStorage:
    """A storage of what a ``CpuStorage`` would be given, in memory of its own."""
    (count,) = {len(rows[name]) // stride for name, stride in schema.regions.items()}
    (slots,) = {len(tags[tag.name]) // tag.row_bytes for tag in schema.tags} or {1}
    backend = FileBackend()
    memory = backend.allocate(device_bytes(schema, count, slots))
    storage = DeviceStorage(schema, backend, memory, count, slots, steps_since)
    for region, filled in zip(storage._laid.regions, [*rows.values(), *tags.values()], strict=True):
        region.memory.copy_(filled)
    return storage
