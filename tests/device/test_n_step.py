"""Its tests, with the columns in memory as a device has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from shmtable.columns import DeviceStorage
from tests.mappers.test_n_step import *  # noqa: F403


@pytest.mark.parametrize("terminated", [None, "end", "ended"])
def test_nothing_that_was_gathered_is_computed_with_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, terminated: str | None
) -> None:
    table = placed([[1.0, 2.0, 4.0, 8.0]], [[False, True, False, True]], 2, 0.5, terminated)  # noqa: F405
    windows = table.windows([(0, 0)], 4, False)
    gathered: list[torch.Tensor] = []
    gather, numpy = DeviceStorage.gather, torch.Tensor.numpy

    def noted(*args: Any) -> torch.Tensor:
        gathered.append(gather(*args))
        return gathered[-1]

    def seen(tensor: torch.Tensor) -> Any:
        memory = tensor.untyped_storage().data_ptr()
        assert all(memory != one.untyped_storage().data_ptr() for one in gathered)
        return numpy(tensor)

    monkeypatch.setattr(DeviceStorage, "gather", noted)
    monkeypatch.setattr(torch.Tensor, "numpy", seen)
    for column in table.schema.virtual:
        column.gather(windows)
    assert len(gathered) >= 2
