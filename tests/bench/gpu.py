"""``python -m tests.bench.gpu``: what tables do on a GPU, beside what the GPU can do.

Prints Markdown, and writes it with every figure behind it to ``bench-output/``. With ``--device
cpu`` it tries itself out without a GPU: in small, and what it prints says nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import shmtable
from tests.bench import gpu_rows, part, tables
from tests.bench.clock import Clock, CpuClock, CudaClock
from tests.bench.machine import machine
from tests.device.places import Cuda, Place, StandIn


def measure(place: Place, clock: Clock, effort: gpu_rows.Effort) -> dict[str, Any]:
    """Everything, and on what it was measured."""
    rows = []
    for row in gpu_rows.Measures(place, clock, effort).rows():
        print(f"{row.measure}: {row.value} {row.why}", file=sys.stderr, flush=True)
        rows.append(row.json())
    return {
        "machine": machine(),
        "device": _described(clock.device),
        "versions": {"shmtable": shmtable.__version__, "torch": torch.__version__},
        "effort": asdict(effort),
        "rows": rows,
    }


def _described(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": None}
    seen = torch.cuda.get_device_properties(device)
    return {
        "name": seen.name,
        "memory_gib": round(seen.total_memory / (1 << 30)),
        "cuda": torch.version.cuda,
    }


def as_markdown(results: dict[str, Any]) -> str:
    """For people."""
    around, device, versions = results["machine"], results["device"], results["versions"]
    what = (
        f"{device['name']} ({device['memory_gib']} GiB, CUDA {device['cuda']})"
        if device["name"]
        else "These are no figures of a GPU: memory of the CPU has stood in for one"
    )
    lines = [
        f"{what}; {around['cores']} cores ({around['processor']}), {around['memory_gib']} GiB, "
        f"{around['system']}, load {around['load']} before the run. "
        f"shmtable {versions['shmtable']}, torch {versions['torch']}; "
        f"{results['effort']['transitions']:,} transitions in each table.",
        "",
        tables.table(
            ["measure", "measured", "wanted", "reached"],
            [
                [
                    row["measure"],
                    "" if row["value"] is None else f"{row['value']:.4g}",
                    row["wanted"],
                    row["why"] or ("yes" if row["reached"] else "no"),
                ]
                for row in results["rows"]
            ],
        ),
        "What is behind them:",
        "",
    ]
    for row in results["rows"]:
        figures = [
            f"{name} {value:,.5g}" for name, value in row["figures"].items() if value is not None
        ]
        if figures:
            lines.append(f"- {row['measure']}: {'; '.join(figures)}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, or shows again what was measured; 0 also where there is no device, 1 for errors."""
    options = _options(arguments)
    if options.again:
        results = json.loads(options.again.read_text())
    elif options.device == "cpu":
        results = measure(StandIn(), CpuClock(), gpu_rows.LEAST)
    elif not torch.cuda.is_available():
        print("no CUDA device here: nothing measured")
        return 0
    else:
        effort = replace(gpu_rows.FULL, seconds=options.seconds)
        results = measure(Cuda(), CudaClock(torch.device(options.device)), effort)
    text = as_markdown(results)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "bench-gpu.md").write_text(text)
    figures = options.output / "bench-gpu.json"
    figures.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    if options.page:
        part.put(options.page, f"## On a GPU\n\n{text}")
    print(f"written to {figures}")
    return int(any(row["why"].startswith(gpu_rows.FAILED) for row in results["rows"]))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try it out (cuda)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="that writers and a reader run together (60)"
    )
    parser.add_argument("--page", type=Path, help="write the part of this page too")
    parser.add_argument("--again", type=Path, help="show these figures, and measure nothing")
    parser.add_argument("--output", type=Path, default=Path("bench-output"), help="folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
