"""The pictures of a report: each an SVG that takes its text's colour from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from shmtable.report.seen import Seen

# Blue and orange: told apart by everybody, and readable on white and on black.
_ONE, _OTHER = "#3f87d9", "#d9822b"
# Stands for the page's own text colour until the picture is in the page.
_INK = "#010203"
_BINS = 30
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "shmtable",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        title: above it.
        text: the same in words, for who cannot see it.
        svg: the picture.
    """

    title: str
    text: str
    svg: str


def pictures(seen: Seen) -> list[Picture]:
    """All that there is something to show for."""
    sequences = seen.sequences
    made = []
    if len(seen.moments) > 1:
        made += [_fill(seen), _rates(seen)]
    if len(sequences.lengths):
        made += [
            _histogram("How long sequences are", "transitions", sequences.lengths),
            _histogram("How old sequences are", "transitions added since", sequences.ages),
            _histogram("How often each was sampled", "windows", sequences.times_sampled),
        ]
    if sequences.priorities is not None and len(sequences.priorities):
        made.append(_histogram("Priorities", "priority", sequences.priorities))
    if seen.last.transitions_added:
        made.append(_shares(seen))
    return made


def _fill(seen: Seen) -> Picture:
    seconds = [moment.at_s for moment in seen.moments]
    fills = [100 * moment.stats.fill for moment in seen.moments]

    def draw(axes: Axes) -> None:
        axes.plot(seconds, fills, color=_ONE)
        axes.fill_between(seconds, fills, color=_ONE, alpha=0.2)
        axes.set(xlabel="seconds", ylabel="% of maxlen", ylim=(0, 105), xlim=(0, seconds[-1]))

    text = (
        f"From {fills[0]:.0f} % to {fills[-1]:.0f} % of maxlen in {seconds[-1]:.1f} s; between "
        f"{min(fills):.0f} % and {max(fills):.0f} %."
    )
    return _picture("fill", "Fill over time", text, draw)


def _rates(seen: Seen) -> Picture:
    def draw(axes: Axes) -> None:
        for total, label, color in (
            ("transitions_added", "in", _ONE),
            ("transitions_sampled", "out", _OTHER),
        ):
            axes.plot(*seen.rates(total), color=color, label=label)
        axes.set(xlabel="seconds", ylabel="transitions/s", xlim=(0, seen.watched_s))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.legend(loc="best", ncols=2)

    text = (
        f"On average {seen.per_second('transitions_added'):,.0f} transitions a second in and "
        f"{seen.per_second('transitions_sampled'):,.0f} out."
    )
    return _picture("rates", "Rates in and out", text, draw)


def _histogram(title: str, unit: str, values: npt.NDArray[np.generic]) -> Picture:
    numbers = values.astype(np.float64)
    least, most = float(numbers.min()), float(numbers.max())

    def draw(axes: Axes) -> None:
        whole = np.issubdtype(values.dtype, np.integer)
        if whole and most - least < _BINS:  # a bar for each number
            axes.hist(numbers, np.arange(least - 0.5, most + 1).tolist(), color=_ONE, rwidth=0.9)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        else:
            axes.hist(numbers, _BINS, color=_ONE)
            axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set(xlabel=unit, ylabel="how many")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        if most >= 10_000:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))

    quarter, median, three = np.quantile(numbers, (0.25, 0.5, 0.75))
    text = (
        f"{len(numbers):,} in all, {least:,.6g} to {most:,.6g} ({unit}); half of them between "
        f"{quarter:,.6g} and {three:,.6g}, the median is {median:,.6g}."
    )
    return _picture(re.sub(r"\W+", "-", title.lower()), title, text, draw)


def _shares(seen: Seen) -> Picture:
    writers = sorted(
        (process for process in seen.last.processes if process.transitions_added),
        key=lambda process: -process.transitions_added,
    )
    total = seen.last.transitions_added
    shares = [(f"process {writer.pid}", writer.transitions_added / total) for writer in writers]
    if len(shares) > 12:
        shares = [*shares[:11], (f"{len(shares) - 11} more", sum(s for _, s in shares[11:]))]
    left = 1 - sum(share for _, share in shares)
    if left > 0.0005:
        shares.append(("no longer there", left))

    def draw(axes: Axes) -> None:
        labels = [label for label, _ in shares]
        percents = [100 * share for _, share in shares]
        bars = axes.barh(range(len(shares)), percents, color=_ONE)
        axes.set_yticks(range(len(shares)), labels)
        axes.bar_label(bars, fmt="%.0f %%", padding=3)
        axes.invert_yaxis()
        axes.set(xlabel="% of all transitions added", xlim=(0, 1.15 * max(percents)))

    text = "; ".join(f"{label} {100 * share:.0f} %" for label, share in shares) + "."
    return _picture("writers", "Who added what", text, draw)


def _picture(name: str, title: str, text: str, draw: Callable[[Axes], None]) -> Picture:
    with matplotlib.rc_context(_STYLE):
        # A figure of its own with the SVG canvas: needs no display and no global state.
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        figure.patch.set_alpha(0)
        canvas: Any = FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        draw(axes)
        file = io.StringIO()
        canvas.print_svg(file, metadata={"Date": None, "Creator": None})
    return Picture(title, text, _inline(file.getvalue(), f"picture-{name}", title, text))


def _inline(svg: str, name: str, title: str, text: str) -> str:
    """An SVG file as a part of a page that has several of them."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    svg = svg.replace(_INK, "currentColor")
    svg = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1sans-serif", svg)
    head = re.match(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="[^"]*"', head.group()) if head else None
    assert head and box, "matplotlib writes an svg element with a viewBox"
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{box.group()} role="img" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-text">{escape(text)}</desc>'
    )
    return opening + svg[head.end() :]
