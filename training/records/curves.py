"""The training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.records.figure_files import save_figure
from training.records.history import EpochRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (
    ("Loss", "loss"),
    ("Top-1 error (%)", "err1"),
    ("Top-5 error (%)", "err5"),
)
CURVES = {"train": "train", "val": "val", "val, averaged weights": "ema_val"}
FEWEST_FOR_HALF = 6
"""Epochs from which on the last half of them has panels of its own."""
MOST_WITH_MARKERS = 30
"""Epochs up to which each is marked by a dot."""


def write_curves(history: Sequence[EpochRecord], pdf_path: Path) -> None:
    """Draw learning rate, loss, top-1 and top-5 error over the epochs.

    Writes ``pdf_path`` and, beside it, a PNG file of the same stem.

    Raises:
        WriteError: a file cannot be written.
    """
    save_figure(draw_curves(history), pdf_path)


def draw_curves(history: Sequence[EpochRecord]) -> Figure:
    """Return the figure of ``history``; it belongs to no window and no global backend.

    From six epochs on there is a second row, scaled to the last half of them, where curves differ
    by less than the first epochs' height lets one see.
    """
    from matplotlib.figure import Figure

    last_half = history[len(history) // 2 :] if len(history) >= FEWEST_FOR_HALF else []
    rows = [history, last_half] if last_half else [history]
    figure = Figure(figsize=(14, 3.5 * len(rows)))
    # A layout engine draws everything four times to find these.
    height = 3.5 * len(rows)
    edges = {"bottom": 0.55 / height, "top": 1 - 0.32 / height, "left": 0.04, "right": 0.99}
    figure.subplots_adjust(**edges, wspace=0.2, hspace=0.32)
    grid = figure.add_gridspec(len(rows), 1 + len(PANELS))
    rates = figure.add_subplot(grid[:, 0])
    marker = marker_of(len(history))
    _plot(rates, history, {"": "lr"}, "Learning rate", marker)
    rates.set_yscale("log")
    for row, records in enumerate(rows):
        epochs = f", epochs {records[0].epoch} to {records[-1].epoch}" if row else ""
        for column, (title, score) in enumerate(PANELS, start=1):
            curves = {label: f"{split}_{score}" for label, split in CURVES.items()}
            axes = figure.add_subplot(grid[row, column])
            _plot(axes, records, curves, f"{title}{epochs}", marker)
            if row == 0:
                axes.legend()
    return figure


def known(history: Sequence[EpochRecord], column: str) -> tuple[list[int], list[float]]:
    """Return the epochs of which ``column`` is known, and its values."""
    pairs = [(record.epoch, getattr(record, column)) for record in history]
    pairs = [(epoch, value) for epoch, value in pairs if not math.isnan(value)]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]


def marker_of(epochs: int) -> str | None:
    """Return the marker of a curve of so many epochs, None for no marker."""
    return "." if epochs <= MOST_WITH_MARKERS else None


def _plot(
    axes: Axes,
    history: Sequence[EpochRecord],
    curves: dict[str, str],
    title: str,
    marker: str | None,
) -> None:
    from matplotlib.ticker import MaxNLocator

    for label, column in curves.items():
        epochs, values = known(history, column)
        if epochs:
            axes.plot(epochs, values, marker=marker, label=label)
    axes.set_title(title, y=1)  # or it would look for what is in its way
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
