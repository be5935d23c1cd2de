"""Draws what happened: learning curve, fill and replay ratio over the transitions added."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from shmtable.demo.meter import Meter
from shmtable.demo.options import Options


def draw(meter: Meter, options: Options) -> Path:
    """Writes ``demo.png`` into the output directory.

    Returns:
        The file's path.
    """
    # A figure of its own with the Agg canvas: needs no display and no global state.
    figure = Figure(figsize=(8, 9), layout="constrained")
    FigureCanvasAgg(figure)
    learning, fill, ratio = figure.subplots(3, 1, sharex=True, height_ratios=[2, 1, 1])
    _draw_learning(learning, meter, options)
    steps = [moment.transitions_added for moment in meter.history]
    fill.plot(steps, [100 * moment.fill for moment in meter.history], color="tab:green")
    fill.set(ylabel="table fill (%)", ylim=(0, 105))
    ratio.plot(steps, [moment.replay_ratio for moment in meter.history], color="tab:purple")
    ratio.axhline(options.replay_ratio, color="grey", linestyle=":", label="asked for")
    ratio.set(ylabel="replay ratio", xlabel="transitions added", ylim=(0, None))
    ratio.legend(loc="lower right")
    path = options.output / "demo.png"
    figure.savefig(path, dpi=120)
    return path


def _draw_learning(axes: Axes, meter: Meter, options: Options) -> None:
    steps = [moment.transitions_added for moment in meter.history]
    returns = [moment.episode_return for moment in meter.history]
    axes.plot(steps, returns, color="tab:blue", label="actors, with random actions")
    axes.plot(
        [at for at, _ in meter.evaluations],
        [value for _, value in meter.evaluations],
        color="tab:orange",
        marker=".",
        label=f"greedy policy, mean of {options.evaluation_episodes} episodes",
    )
    axes.axhline(options.threshold, color="grey", linestyle=":", label="solved")
    axes.set(title="CartPole-v1 through one shared table", ylabel="return")
    axes.legend(loc="upper left")
