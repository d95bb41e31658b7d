"""What ``--tensorboard`` writes: the columns of log.csv and the histograms of λ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from training.atomic_write import WriteError
from training.errors import UserError
from training.records.history import EpochRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER_NAME = "tensorboard"

# Curves whose tags share what stands before the slash are shown beside each other.
TAGS = {
    "lr": "lr",
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "train_err1": "err1/train",
    "val_err1": "err1/val",
    "train_err5": "err5/train",
    "val_err5": "err5/val",
    "seconds": "usage/seconds",
    "images_per_second": "usage/images_per_second",
    "data_wait_percent": "usage/data_wait_percent",
    "gpu_memory_gib": "usage/gpu_memory_gib",
}


def check_tensorboard() -> None:
    """Raise UserError if ``--tensorboard`` cannot be done."""
    _writer_class()


def open_tensorboard(out_dir: Path, start_epoch: int) -> SummaryWriter:
    """Return the writer, below ``out_dir``, of a run that has had ``start_epoch`` epochs.

    What a run before it was resumed wrote of later epochs is hidden.

    Raises:
        UserError: the package tensorboard is missing.
        WriteError: ``--out-dir`` cannot be written.
    """
    folder = out_dir / FOLDER_NAME
    try:
        return _writer_class()(folder, purge_step=start_epoch + 1)
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_tensorboard(
    writer: SummaryWriter, record: EpochRecord, lambdas: Mapping[str, Tensor]
) -> None:
    """Add an epoch's numbers, and a histogram of each layer's λ, at the step of that number.

    Raises:
        WriteError: the files cannot be written.
    """
    try:
        for column, tag in TAGS.items():
            value = getattr(record, column)
            if not math.isnan(value):
                writer.add_scalar(tag, value, record.epoch)
        for layer, lam in lambdas.items():
            writer.add_histogram(f"lambda/{layer}", lam[lam.isfinite()], record.epoch)
        writer.flush()
    except OSError as error:
        raise _unwritable(Path(writer.log_dir), error) from error


def _writer_class() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            f"--tensorboard: PyTorch cannot use the package ({error}): pip install tensorboard, "
            "or leave the option out, for log.csv and lambdas.csv hold the same numbers"
        ) from error
    return SummaryWriter


def _unwritable(folder: Path, error: OSError) -> WriteError:
    return WriteError(
        f"--tensorboard: cannot write {folder} ({error.strerror or error}); free the space or "
        "leave the option out"
    )
