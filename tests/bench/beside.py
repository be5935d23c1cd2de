"""``python -m tests.bench.beside``: what the table does beside other replay buffers.

Prints Markdown, and writes it with every figure behind it and three pictures to ``bench-output/``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.bench import pictures, sections
from tests.bench.driver import Company
from tests.bench.machine import available_bytes, machine
from tests.bench.page import page, results_as_markdown
from tests.bench.part import kept

_EFFORTS = {"full": sections.FULL, "quick": sections.QUICK, "least": sections.LEAST}
# All peers together, with and without priorities, and half as much that is left to others.
_BYTES_EACH = 1500


def measure(company: Company, effort: sections.Effort, *, quick: bool) -> dict[str, Any]:
    """All parts, one after another."""
    results: dict[str, Any] = {
        "machine": machine(),
        "settings": asdict(effort),
        "peers": company.about(),
    }
    # First of all, while the processes have nothing that memory could be taken from.
    layouts = ("cheetah",) if quick else ("cheetah", "pixels")
    _say("memory")
    results["memory"] = sections.memory(company, effort, layouts)
    results["attached"] = [] if quick else sections.attached(company, effort)
    _say("one process")
    results["one"] = sections.one_process(company, effort)
    _say("many processes")
    results["crowd"] = sections.crowds(company, effort)
    _say("growing tables")
    results["growth"] = sections.growth(company, effort)
    results["strategies"] = [] if quick else sections.strategies(company, effort)
    results["split"] = sections.split(company, effort)
    results["peers"] = company.about()  # one may have ended meanwhile
    return results


def write(results: dict[str, Any], folder: Path, page_path: Path | None) -> list[Path]:
    """Writes the text, the figures, the pictures and the page; what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    text, figures = folder / "bench-beside.md", folder / "bench-beside.json"
    text.write_text(results_as_markdown(results))
    figures.write_text(json.dumps(results, indent=2) + "\n")
    written = [text, figures, *pictures.draw(results, folder)]
    if page_path:
        drawn = pictures.draw(results, page_path.parent / "drawings", "svg")
        shown = [path.relative_to(page_path.parent) for path in drawn]
        page_path.write_text(page(results, shown) + kept(page_path))
        written += [page_path, *drawn]
    return written


def main() -> int:
    """Measures, or shows again what was measured."""
    options = _options()
    if options.again:
        results = json.loads(options.again.read_text())
    else:
        here = sys.executable
        interpreters = {"shmtable": here, "plain": here}
        if options.peers:
            interpreters |= {"cpprb": options.peers, "torchrl": options.peers}
        if options.reverb:
            interpreters["reverb"] = options.reverb
        effort = _fitting(_EFFORTS[options.effort], options.largest)
        if options.writers:
            effort = replace(effort, writers=tuple(options.writers))
        with Company(interpreters) as company:
            for name, why in company.absent.items():
                _say(f"{name} is not measured: {why}")
            results = measure(company, effort, quick=options.effort != "full")
        results["settings"]["note"] = options.note
    print(results_as_markdown(results))
    for path in write(results, options.output, options.page):
        print(f"written to {path}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.beside", description=__doc__)
    parser.add_argument("--peers", help="interpreter that has cpprb and torchrl")
    parser.add_argument("--reverb", help="interpreter that has reverb")
    parser.add_argument(
        "--effort", choices=_EFFORTS, default="full", help="how much is measured (full)"
    )
    parser.add_argument("--writers", type=int, nargs="+", help="how many, in turn (1 2 4 8)")
    parser.add_argument("--largest", type=int, help="transitions of the largest table (1000000)")
    parser.add_argument("--note", help="what readers of the page have to know about this run")
    parser.add_argument("--page", type=Path, help="write this page too")
    parser.add_argument("--again", type=Path, help="show these figures, and measure nothing")
    parser.add_argument("--output", type=Path, default=Path("bench-output"), help="folder")
    return parser.parse_args()


def _fitting(effort: sections.Effort, largest: int | None) -> sections.Effort:
    """With tables up to ``largest``, as far as there is memory for them."""
    if largest is None:
        return effort
    sizes = tuple(sorted({*(size for size in effort.sizes if size < largest), largest}))
    fit = tuple(size for size in sizes if size * _BYTES_EACH <= available_bytes())
    if fit != sizes:
        _say(f"no memory for tables of more than {max(fit, default=0)} transitions")
    return replace(effort, sizes=fit or effort.sizes[:1])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
