"""What each epoch of a run came to, as the checkpoints' statistics and as ``log.csv``."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from training.atomic_write import atomic_write
from training.errors import UserError
from training.records.metrics import Scores
from training.records.usage import Usage


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch; a number that is not known is nan.

    Attributes:
        epoch: counted from 1.
        lr: learning rate; with ``--lr-per-step`` that of the epoch's first step.
        train_loss, train_err1, train_err5: means over the epoch's training images, while the
            weights moved; errors in percent.
        val_loss, val_err1, val_err5: the same of the validation images after the epoch.
        ema_val_loss, ema_val_err1, ema_val_err5: the same of the averaged weights of ``--ema``.
        seconds: time of the whole epoch, validation included.
        images_per_second: training images, over the training time, waits for data included.
        data_wait_percent, gpu_memory_gib: of the training, see ``Usage``.
        skipped_steps: steps that ``--on-nan skip`` left out, and the means above with them.
    """

    epoch: int
    lr: float
    train_loss: float
    train_err1: float
    train_err5: float
    val_loss: float
    val_err1: float
    val_err5: float
    seconds: float
    images_per_second: float
    data_wait_percent: float = math.nan
    gpu_memory_gib: float = math.nan
    skipped_steps: float = 0.0
    ema_val_loss: float = math.nan
    ema_val_err1: float = math.nan
    ema_val_err5: float = math.nan

    @classmethod
    def of(
        cls,
        epoch: int,
        lr: float,
        train: Scores,
        val: Scores,
        averaged_val: Scores | None,
        seconds: float,
        train_seconds: float,
        usage: Usage,
    ) -> "EpochRecord":
        """Return the record of an epoch of ``seconds``, ``train_seconds`` of them training."""
        averaged = {}
        if averaged_val is not None:
            averaged = {
                "ema_val_loss": averaged_val.loss,
                "ema_val_err1": averaged_val.err1,
                "ema_val_err5": averaged_val.err5,
            }
        return cls(
            epoch=epoch,
            lr=lr,
            train_loss=train.loss,
            train_err1=train.err1,
            train_err5=train.err5,
            val_loss=val.loss,
            val_err1=val.err1,
            val_err5=val.err5,
            seconds=seconds,
            images_per_second=train.images / train_seconds,
            data_wait_percent=usage.data_wait_percent,
            gpu_memory_gib=usage.gpu_memory_gib,
            skipped_steps=float(train.skipped_steps),
            **averaged,
        )

    @property
    def averaged_is_better(self) -> bool:
        """Whether the averaged weights have the lower top-1 error; of equals, the lower loss."""
        averaged = (self.ema_val_err1, self.ema_val_loss)
        return averaged < (self.val_err1, self.val_loss)  # never where they are nan

    @property
    def best_val_err1(self) -> float:
        """The top-1 validation error of the better weights, raw or averaged."""
        return self.ema_val_err1 if self.averaged_is_better else self.val_err1

    @property
    def best_val_err5(self) -> float:
        """The top-5 validation error of the weights with the better top-1 error."""
        return self.ema_val_err5 if self.averaged_is_better else self.val_err5

    def __str__(self) -> str:
        line = (
            f"lr {self.lr:.4g}, train loss {self.train_loss:.4f} err@1 {self.train_err1:.2f}% "
            f"err@5 {self.train_err5:.2f}%, val loss {self.val_loss:.4f} err@1 "
            f"{self.val_err1:.2f}% err@5 {self.val_err5:.2f}%, "
        )
        if not math.isnan(self.ema_val_err1):
            better = "averaged" if self.averaged_is_better else "raw"
            line += (
                f"averaged weights' val loss {self.ema_val_loss:.4f} err@1 "
                f"{self.ema_val_err1:.2f}% err@5 {self.ema_val_err5:.2f}% (better: {better}), "
            )
        line += f"{self.seconds:.1f} s, {self.images_per_second:.1f} images/s"
        if not math.isnan(self.data_wait_percent):
            line += f", data wait {self.data_wait_percent:.1f}%"
        if not math.isnan(self.gpu_memory_gib):
            line += f", GPU memory {self.gpu_memory_gib:.2f} GiB"
        if self.skipped_steps > 0:
            line += f", skipped steps {self.skipped_steps:.0f}"
        return line


LOG_NAME = "log.csv"
COLUMNS = tuple(field.name for field in fields(EpochRecord))
PUBLISHED_COLUMNS = tuple(name for name in COLUMNS if name.startswith(("train_", "val_")))


def stats_from_history(history: Sequence[EpochRecord]) -> dict[str, list[float]]:
    """Return the published checkpoints' ``stats``: a list per column, ``val_`` as ``test_``.

    The columns the published implementation does not have are there too.
    """
    return {stats_key(name): [getattr(record, name) for record in history] for name in COLUMNS}


def history_from_stats(stats: Mapping[str, Sequence[float]], epoch: int) -> list[EpochRecord]:
    """Return the records of a checkpoint's ``stats`` after ``epoch`` epochs.

    Raises:
        KeyError, TypeError, ValueError: ``stats`` lacks a column of the published ones, or
            they are not lists of numbers of one length.
    """
    losses = stats["train_loss"]
    unknown = [math.nan] * len(losses)
    columns = {name: stats[stats_key(name)] for name in PUBLISHED_COLUMNS}
    columns["epoch"] = range(epoch - len(losses) + 1, epoch + 1)
    for name in COLUMNS:
        if name not in columns:
            columns[name] = stats.get(stats_key(name), unknown)
    rows = zip(*(columns[name] for name in COLUMNS), strict=True)
    return [EpochRecord(int(row[0]), *map(float, row[1:])) for row in rows]


def best_record(history: Sequence[EpochRecord]) -> EpochRecord:
    """Return the record of least top-1 validation error, raw or averaged; the latest of equals."""
    return min(reversed(history), key=lambda record: record.best_val_err1)


def write_log(history: Sequence[EpochRecord], path: Path) -> None:
    """Write ``history`` to the CSV file ``path``, a header and a row per epoch.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(
            ["" if math.isnan(value) else value for value in astuple(record)] for record in history
        )


def read_log(path: Path) -> list[EpochRecord]:
    """Return the history that ``write_log`` wrote; columns that an older one lacks are nan.

    Raises:
        UserError: there is no such file, or it is not such a log.
    """
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        return [_record_from_row(row) for row in rows]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: is no log of a training run ({error!r})") from error


def _record_from_row(row: Mapping[str, str]) -> EpochRecord:
    values = {name: float(row.get(name) or "nan") for name in COLUMNS}
    return EpochRecord(**values | {"epoch": int(row["epoch"])})


def stats_key(column: str) -> str:
    """Return the published checkpoints' name of a column."""
    return f"test_{column[4:]}" if column.startswith("val_") else column
