"""A measurement as a Markdown table and as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shmtable
from tests.bench.measure import Timing


def surroundings(device: torch.device, transitions: int, rounds: int) -> dict[str, Any]:
    """Everything a figure depends on, as far as it can be told."""
    return {
        "shmtable": shmtable.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "transitions": transitions,
        "rounds": rounds,
    }


def markdown(around: dict[str, Any], timings: list[Timing]) -> str:
    """The figures as people read them."""
    lines = [
        f"shmtable {around['shmtable']}, torch {around['torch']}, Python {around['python']}, "
        f"{around['cores']} cores, {around['torch_threads']} torch thread(s), "
        f"device {around['device']}; {around['transitions']} HalfCheetah-like transitions, "
        f"{around['rounds']} calls of each, taking turns.",
        "",
        "| call | KiB | median µs | p99 µs | plain copy: median µs | p99 µs | call / copy "
        "| aim µs |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for timing in timings:
        aim = "" if timing.aim_us is None else f"{timing.aim_us:.0f}"
        lines.append(
            f"| {timing.name} | {timing.moved_bytes / 1024:.0f} | {timing.median_us:.1f} "
            f"| {timing.p99_us:.1f} | {timing.copy_median_us:.1f} | {timing.copy_p99_us:.1f} "
            f"| {timing.factor:.1f} | {aim} |"
        )
    return "\n".join(lines) + "\n"


def write(
    folder: Path, name: str, around: dict[str, Any], timings: list[Timing], text: str
) -> Path:
    """Writes ``NAME.md`` and ``NAME.json`` into the folder; the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text)
    figures = [{**asdict(timing), "factor": timing.factor} for timing in timings]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"around": around, "timings": figures}, indent=2) + "\n")
    return path
