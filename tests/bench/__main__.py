"""``python -m tests.bench``: what the table costs beside a plain copy of the same bytes.

Prints a Markdown table and writes it, with every figure behind it, to ``bench-output/``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tests.bench.cases import TRANSITIONS, cases
from tests.bench.measure import measure
from tests.bench.report import markdown, surroundings, write


def main() -> int:
    """Measures every case; 0 also where there is no device to measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000, help="timed calls of each (2000)")
    parser.add_argument("--transitions", type=int, default=TRANSITIONS, help="in the table")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    parser.add_argument("--device", default="cpu", help="where samples are delivered (cpu)")
    parser.add_argument("--output", type=Path, default=Path("bench-output"), help="folder")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing measured")
        return 0
    torch.set_num_threads(options.threads)
    around = surroundings(device, options.transitions, options.rounds)
    timings = [
        measure(case, rounds=options.rounds, device=device)
        for case in cases(options.transitions, device)
    ]
    text = markdown(around, timings)
    print(text)
    name = f"bench-{device.type}"
    print(f"written to {write(options.output, name, around, timings, text)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
