"""Groups of runs as curves: means, and bands of their spread."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from training.records.curves import FEWEST_FOR_HALF, marker_of
from training.records.figure_files import drawable
from training.records.run_groups import RunGroup

PANELS = {"Loss": "loss", "Top-1 error (%)": "err1", "Top-5 error (%)": "err5"}
STYLES = {"val": "-", "train": ":", "ema_val": "--"}
STYLE_NAMES = {
    "val": "validation",
    "train": "training",
    "ema_val": "validation, averaged weights",
}
LEGEND_LETTERS = 140
"""That fit into a line of the legend, a curve's sample counted as eight of them."""


def draw_groups(groups: Sequence[RunGroup]) -> Figure:
    """Return the figure of the groups' loss and errors over the epochs, a colour per group.

    A line is the mean over a group's runs, of the epochs that all of them have had; the band
    around validation's is one standard deviation each way. From six epochs on there is a second
    row, scaled to the last half of them.
    """
    last = max(run.history[-1].epoch for group in groups for run in group.runs)
    rows = [1, last // 2 + 1] if last >= FEWEST_FOR_HALF else [1]
    figure = Figure(figsize=(14, 4 * len(rows) + 1), layout="constrained")
    grid = figure.subplots(len(rows), len(PANELS), squeeze=False)
    for row, first in zip(grid, rows, strict=True):
        for axes, (title, column) in zip(row, PANELS.items(), strict=True):
            for group, color in zip(groups, _colors(len(groups)), strict=True):
                _plot(axes, group, column, first, color)
            axes.set_title(title if first == 1 else f"{title}, epochs {first} to {last}")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
    _add_legend(figure, groups)
    return figure


def _plot(axes: Axes, group: RunGroup, column: str, first: int, color: Any) -> None:
    common = set.intersection(*({each.epoch for each in run.history} for run in group.runs))
    epochs = sorted(epoch for epoch in common if epoch >= first)
    for split, style in STYLES.items():
        of_runs = np.array(
            [
                [getattr(each, f"{split}_{column}") for each in run.history if each.epoch in epochs]
                for run in group.runs
            ]
        )
        if np.isnan(of_runs).all():
            continue  # without --ema
        mean = of_runs.mean(0)
        axes.plot(
            epochs, mean, style, color=color, marker=marker_of(group.runs[0].history[-1].epoch)
        )
        if split == "val" and len(of_runs) > 1:
            spread = of_runs.std(0, ddof=1)
            lowest = np.maximum(mean - spread, 0)  # no loss or error is less
            axes.fill_between(epochs, lowest, mean + spread, color=color, alpha=0.2, linewidth=0)


def _add_legend(figure: Figure, groups: Sequence[RunGroup]) -> None:
    names = [drawable(textwrap.fill(group.label, LEGEND_LETTERS)) for group in groups]
    handles: list[Any] = [Line2D([], [], color=color) for color in _colors(len(groups))]
    for split, style in STYLES.items():
        if any(_is_known(group, f"{split}_loss") for group in groups):
            names.append(STYLE_NAMES[split])
            handles.append(Line2D([], [], color="black", linestyle=style))
    if any(len(group.runs) > 1 for group in groups):
        names.append("± standard deviation")
        handles.append(Patch(color="black", alpha=0.2, linewidth=0))
    longest = max(len(line) for name in names for line in name.splitlines())
    columns = max(1, min(len(names), LEGEND_LETTERS // (longest + 8)))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def _is_known(group: RunGroup, column: str) -> bool:
    return any(
        not math.isnan(getattr(record, column)) for run in group.runs for record in run.history
    )


def _colors(count: int) -> list[Any]:
    if count <= 10:
        return list(matplotlib.colormaps["tab10"].colors[:count])
    return [matplotlib.colormaps["turbo"](index / (count - 1)) for index in range(count)]
