"""The picture of a confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.records.figure_files import drawable, save_figure
from training.records.predictions import MOST_CLASSES, Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFUSION_PDF_NAME = "confusion.pdf"

MOST_LABELS = 40
"""Up to so many classes have their names at the picture's sides."""

MOST_NUMBERS = 20
"""Up to so many classes have a number in each cell."""

MOST_CELLS = 200
"""Of more classes several are drawn as one, and each cell is some pixels wide."""


def write_confusion(predictions: Predictions, out_dir: Path) -> None:
    """Draw the confusion matrix into ``confusion.pdf`` and ``.png``.

    Beyond ``MOST_CLASSES`` classes there is none, and an earlier one is removed.

    Raises:
        WriteError: a file cannot be written.
    """
    path = out_dir / CONFUSION_PDF_NAME
    if len(predictions.outputs) > MOST_CLASSES:
        for each in (path, path.with_suffix(".png")):
            each.unlink(missing_ok=True)
        return
    save_figure(draw_confusion(predictions), path)


def draw_confusion(predictions: Predictions) -> Figure:
    """Return the figure: of each true class's images, the share taken for each class.

    Few classes have their names and numbers, many are a heat map. Of more than ``MOST_CELLS``
    neighbouring ones are drawn as one, so that single mistakes are seen. The scale shows small
    shares as well; a class without images is grey.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    names = [predictions.names[output] for output in predictions.outputs]
    block = -(-len(names) // MOST_CELLS)
    matrix = summed_by_blocks(predictions.matrix(), block)
    images = matrix.sum(axis=1, keepdims=True)
    percent = np.divide(100 * matrix, images, out=np.full(matrix.shape, np.nan), where=images > 0)
    figure = Figure(figsize=(10.5, 8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("lightgrey")
    drawn = axes.imshow(
        percent,
        cmap="Blues",
        norm=PowerNorm(0.4, vmin=0, vmax=100),
        interpolation="nearest",
        extent=(-0.5, block * len(matrix) - 0.5, block * len(matrix) - 0.5, -0.5),
    )
    figure.colorbar(
        drawn,
        cax=axes.inset_axes((1.03, 0, 0.04, 1)),
        label="% of the true class's images",
        ticks=(0, 1, 5, 10, 25, 50, 100),
    )
    together = f", {block} together" if block > 1 else ""
    axes.set_xlabel(f"predicted class{together}")
    axes.set_ylabel(f"true class{together}")
    if len(names) <= MOST_LABELS:
        places = range(len(names))
        axes.set_xticks(places, [_short(name) for name in names], rotation=90)
        axes.set_yticks(places, [_short(name) for name in names])
    if len(names) <= MOST_NUMBERS:
        _add_numbers(axes, matrix, percent)
    return figure


def summed_by_blocks(matrix: np.ndarray, block: int) -> np.ndarray:
    """Return the sums over blocks of ``block`` rows and columns, the last ones maybe smaller.

    Example:
        >>> summed_by_blocks(np.eye(3, dtype=int), 2).tolist()
        [[2, 0], [0, 1]]
    """
    starts = np.arange(0, len(matrix), block)
    return np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)


def _add_numbers(axes: Axes, matrix: np.ndarray, percent: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            color = "white" if percent[row, column] > 25 else "black"
            axes.text(
                column, row, str(count), ha="center", va="center", color=color, fontsize="small"
            )


def _short(name: str) -> str:
    return drawable(name if len(name) <= 24 else f"{name[:23]}…")
