"""The same figures to look at; without matplotlib there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench import tables

COLOURS = {"shmtable": "C0", "cpprb": "C1", "torchrl": "C2", "reverb": "C3", "plain": "C7"}


def draw(results: dict[str, Any], folder: Path, kind: str = "png") -> list[Path]:
    """Three pictures; returns what was written."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "shmtable"  # the same figures, the same file
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "bench-processes": _processes,
        "bench-size": _size,
        "bench-split": _split,
    }
    return [make(results, folder / f"{name}.{kind}") for name, make in pictures.items()]


def _saved(figure: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    figure.savefig(path, dpi=100, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    return path


def _processes(results: dict[str, Any], path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    records = [record for record in results["crowd"] if "writers" in record]
    rates = {"steps_per_s": "steps/s in", "samples_per_s": "samples/s out"}
    for axis, (rate, label) in zip(axes, rates.items(), strict=True):
        for peer in dict.fromkeys(record["peer"] for record in records):
            mine = [record for record in records if record["peer"] == peer]
            mine.sort(key=lambda record: int(record["writers"]))
            numbers = [record["writers"] for record in mine]
            axis.plot(numbers, [r[rate] for r in mine], "o-", color=COLOURS[peer], label=peer)
        axis.set(xlabel="writers", ylabel=label, yscale="log")
        axis.grid(alpha=0.3)
    axes[0].legend()
    return _saved(figure, path)


def _size(results: dict[str, Any], path: Path) -> Path:
    import matplotlib.pyplot as plt

    records = [record for record in results["growth"] if "typical" in record]
    names = list(dict.fromkeys(tables.shown(record) for record in records))
    columns = max((len(names) + 1) // 2, 1)
    figure, axes = plt.subplots(2, columns, figsize=(5 * columns, 7), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for peer in dict.fromkeys(record["peer"] for record in records):
            mine = {
                record["setup"]["transitions"]: record["typical"]
                for record in records
                if record["peer"] == peer and tables.shown(record) == name
            }
            axis.plot(list(mine), list(mine.values()), "o-", color=COLOURS[peer], label=peer)
        axis.set(title=name, xlabel="transitions", ylabel="µs", xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    return _saved(figure, path)


def _split(results: dict[str, Any], path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 3))
    records = [record for record in results["split"] if "us" in record]
    parts = list(dict.fromkeys(part for record in records for part in record["us"]))
    starts = [0.0] * len(records)
    for part in parts:
        widths = [record["us"].get(part, 0.0) for record in records]
        axis.barh([record["name"] for record in records], widths, left=starts, label=part)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    axis.set(xlabel="µs")
    axis.invert_yaxis()
    axis.legend(fontsize="small")
    return _saved(figure, path)
