"""The training curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.atomic_write import atomic_write
from training.records.history import EpochRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (
    ("Learning rate", {"learning rate": "lr"}),
    ("Loss", {"train": "train_loss", "val": "val_loss"}),
    ("Top-1 error (%)", {"train": "train_err1", "val": "val_err1"}),
    ("Top-5 error (%)", {"train": "train_err5", "val": "val_err5"}),
)


def write_curves(history: Sequence[EpochRecord], pdf_path: Path) -> None:
    """Draw learning rate, loss, top-1 and top-5 error over the epochs.

    Writes ``pdf_path`` and, beside it, a PNG file of the same stem.

    Raises:
        WriteError: a file cannot be written.
    """
    save_figure(draw_curves(history), pdf_path)


def save_figure(figure: Figure, pdf_path: Path) -> None:
    """Write ``pdf_path`` and, beside it, a PNG file of the same stem.

    Raises:
        WriteError: a file cannot be written.
    """
    for path in (pdf_path, pdf_path.with_suffix(".png")):
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=120)


def draw_curves(history: Sequence[EpochRecord]) -> Figure:
    """Return the figure of ``history``; it belongs to no window and no global backend."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(14, 3.5))
    # A layout engine draws everything four times to find these, after each epoch.
    figure.subplots_adjust(left=0.04, right=0.99, bottom=0.15, top=0.91, wspace=0.2)
    epochs = [record.epoch for record in history]
    for axes, (title, curves) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for label, column in curves.items():
            values = [getattr(record, column) for record in history]
            axes.plot(epochs, values, marker=".", label=label)
        axes.set_title(title, y=1)  # or it would look for what is in its way
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[0].set_yscale("log")
    return figure
