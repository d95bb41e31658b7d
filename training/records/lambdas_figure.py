"""The λ, or other parameter, of each pooling layer over the epochs, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from training.records.figure_files import drawable, save_figure
from training.records.histograms import Histogram
from training.records.lambdas import read_lambdas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_COLUMNS = 4
COLOR = "tab:blue"


def write_lambdas_figure(csv_path: Path) -> None:
    """Draw what ``csv_path``, a lambdas.csv, holds, as a PDF and a PNG file of the same stem.

    Without λ nothing is done.

    Raises:
        UserError: it is no such file, or a picture cannot be written.
    """
    lambdas = read_lambdas(csv_path)
    if lambdas:
        save_figure(draw_lambdas(lambdas), csv_path.with_suffix(".pdf"))


def draw_lambdas(lambdas: Mapping[int, Mapping[str, Histogram]]) -> Figure:
    """Return the figure of ``lambdas`` by epoch and layer: a panel per layer.

    It has the median over images and channels, and the ranges of the middle 50% and 90%.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    layers = list(dict.fromkeys(layer for of_epoch in lambdas.values() for layer in of_epoch))
    rows = math.ceil(len(layers) / MOST_COLUMNS)
    columns = math.ceil(len(layers) / rows)
    figure = Figure(figsize=(max(3.4 * columns, 5), 2.6 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes, layer in zip(grid.flat, layers, strict=False):
        epochs = [epoch for epoch in lambdas if layer in lambdas[epoch]]
        by_epoch = [lambdas[epoch][layer].quantiles(QUANTILES) for epoch in epochs]
        lowest, low, median, high, highest = zip(*by_epoch, strict=True)
        band = {"color": COLOR, "linewidth": 0}
        axes.fill_between(epochs, lowest, highest, alpha=0.2, label="middle 90%", **band)
        axes.fill_between(epochs, low, high, alpha=0.4, label="middle 50%", **band)
        marker = "." if len(epochs) == 1 else None
        axes.plot(epochs, median, color=COLOR, marker=marker, label="median")
        if min(lowest) >= 0 and max(highest) <= 1:
            axes.set_ylim(0, 1)
        axes.set_title(drawable(layer), fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(layers) :]:
        axes.set_axis_off()
    for column in range(columns):
        last = (len(layers) - 1 - column) // columns
        grid[last, column].set_xlabel("epoch")
        grid[last, column].tick_params(labelbottom=True)
    for row in grid:
        row[0].set_ylabel("parameter")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=3)
    return figure
