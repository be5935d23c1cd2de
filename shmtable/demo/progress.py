"""Shows a run while it lasts: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from shmtable.demo.meter import Meter

LINE_EVERY_S = 5.0
BAR_WIDTH = 50


class Screen(Protocol):
    """Where a run shows itself."""

    def show(self, meter: Meter) -> None:
        """Shows the newest moment; called twice a second."""

    def say(self, text: str) -> None:
        """Tells something that happens once."""


@contextmanager
def open_screen(console: Console | None = None) -> Iterator[Screen]:
    """A live panel if the console is a terminal that can redraw, else plain lines."""
    console = console or Console()
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainScreen()
        return
    # Refreshed by show() only: a thread of its own would take time from the learner.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield LiveScreen(live)


def figures(meter: Meter) -> dict[str, str]:
    """What is worth watching, as label and text."""
    now = meter.history[-1]
    steps_in, samples_out = meter.rates()
    evaluation = f"{meter.evaluations[-1][1]:.0f}" if meter.evaluations else "none yet"
    return {
        "time": f"{now.elapsed_s:.0f} s",
        "episodes": f"{meter.episodes}",
        "return": f"{now.episode_return:.0f}",
        "greedy": evaluation,
        "epsilon": f"{meter.epsilon:.2f}",
        "steps in": f"{now.transitions_added} ({steps_in:.0f}/s)",
        "samples out": f"{now.windows_sampled} ({samples_out:.0f}/s)",
        "updates": f"{meter.updates}",
        "fill": f"{now.fill:.0%}",
    }


class PlainScreen:
    """Prints a line every few seconds, for logs and pipes."""

    def __init__(self) -> None:
        self._next_line_s = 0.0

    def show(self, meter: Meter) -> None:
        """Prints the newest moment, unless a line has been printed just now."""
        now = meter.history[-1].elapsed_s
        if now >= self._next_line_s:
            self.say("  ".join(f"{label} {text}" for label, text in figures(meter).items()))
            self._next_line_s = now + LINE_EVERY_S

    def say(self, text: str) -> None:
        """Prints a line, at once even into a pipe."""
        print(text, flush=True)


class LiveScreen:
    """Redraws one panel in place."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, meter: Meter) -> None:
        """Redraws the panel with the newest moment."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(justify="right", style="dim")
        grid.add_column(min_width=30)
        for label, text in figures(meter).items():
            grid.add_row(label, text)
        bar = ProgressBar(total=1.0, completed=meter.history[-1].fill, width=BAR_WIDTH)
        panel = Panel(Group(grid, bar), title="shmtable demo: CartPole-v1", expand=False)
        self._live.update(panel, refresh=True)

    def say(self, text: str) -> None:
        """Prints a line above the panel."""
        self._live.console.print(text, markup=False, highlight=False)
