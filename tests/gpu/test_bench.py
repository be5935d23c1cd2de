"""The measurements run on a CUDA device."""

from __future__ import annotations

import pytest
import torch

from tests.bench import gpu_rows
from tests.bench.clock import CudaClock
from tests.bench.gpu import as_markdown, measure
from tests.device.places import Cuda

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def test_everything_is_measured() -> None:
    clock = CudaClock(torch.device("cuda"))
    results = measure(Cuda(), clock, gpu_rows.LEAST)
    whys = [row["why"] for row in results["rows"] if row["value"] is None]
    assert all(why.startswith("not installed") for why in whys), whys
    assert torch.cuda.get_device_name() in as_markdown(results)
    assert results["rows"][-1]["value"] == 0
