"""``python -m tests.bench``: what the table costs beside a plain copy of the same bytes.

Prints a Markdown table and writes it, with every figure behind it, to ``bench-output/``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tests.bench.cases import TRANSITIONS, cases
from tests.bench.files import beside_storing, file_cases
from tests.bench.measure import measure
from tests.bench.report import markdown, surroundings, write


def main() -> int:
    """Measures every case; 0 also where there is no device to measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, help="timed calls of each (2000; of files 5, after as many untimed)"
    )
    parser.add_argument("--transitions", type=int, default=TRANSITIONS, help="in the table")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    parser.add_argument("--device", default="cpu", help="where samples are delivered (cpu)")
    parser.add_argument(
        "--files", action="store_true", help="instead: storing and restoring, in the output folder"
    )
    parser.add_argument("--output", type=Path, default=Path("bench-output"), help="folder")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing measured")
        return 0
    torch.set_num_threads(options.threads)
    rounds = options.rounds or (5 if options.files else 2000)
    around = surroundings(device, options.transitions, rounds)
    chosen = (
        file_cases(options.transitions, options.output)
        if options.files
        else cases(options.transitions, device)
    )
    timings = [measure(case, rounds=rounds, device=device) for case in chosen]
    if options.files:
        timings.append(beside_storing(options.transitions, options.output, rounds))
    text = markdown(around, timings)
    print(text)
    name = "bench-files" if options.files else f"bench-{device.type}"
    print(f"written to {write(options.output, name, around, timings, text)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
