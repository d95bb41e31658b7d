"""``--tensorboard``: the columns of log.csv, λ, and numbers from within the epochs."""

from __future__ import annotations

import io
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import UserError
from training.records.histograms import Histogram
from training.records.history import COLUMNS, EpochRecord
from training.records.steps import StepRecord
from training.records.tracker import Ending, numbers_of_lambdas

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

FOLDER_NAME = "tensorboard"
STEPS_NAME = "within_epochs"
"""A folder in the one above, and so a run of its own there: its steps are batches."""


def tag_of(column: str) -> str:
    """Return a column's tag; those that share what stands before the slash are shown together.

    Example:
        >>> tag_of("val_loss"), tag_of("seconds"), tag_of("lr")
        ('loss/val', 'usage/seconds', 'lr')
    """
    split, _, score = column.rpartition("_")
    if score in ("loss", "err1", "err5"):
        return f"{score}/{split}"
    return column if column in ("lr", "skipped_steps") else f"usage/{column}"


def check_tensorboard() -> None:
    """Raise UserError if ``--tensorboard`` cannot be done."""
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
        import torch.utils.tensorboard.summary  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--tensorboard: PyTorch cannot use the package ({error}): pip install tensorboard, "
            "or leave the option out, for log.csv and lambdas.csv hold the same numbers"
        ) from error


class TensorBoard:
    """Writes TensorBoard's files below ``out_dir``.

    What an earlier start of the run wrote of its last epoch, of later ones and of later batches is
    hidden.

    Args:
        out_dir: the folder, which is there.
        epochs: number of epochs that the run has had.
        steps: number of batches that it has had.
    """

    def __init__(self, out_dir: Path, epochs: int, steps: int) -> None:
        folder = out_dir / FOLDER_NAME
        self.told = epochs - 1
        self.epochs = EventFile(folder, purge_step=epochs)
        self.steps = EventFile(folder / STEPS_NAME, purge_step=steps + 1)

    def add_step(self, record: StepRecord) -> None:
        """Add its numbers under ``within_epochs/``, at the step that is the number of batches."""
        numbers = {f"within_epochs/{name}": value for name, value in asdict(record).items()}
        del numbers["within_epochs/step"]  # it is the axis
        self.steps.add(_scalars(numbers), record.step)

    def add_epoch(self, history: Sequence[EpochRecord], lambdas: Mapping[str, Histogram]) -> None:
        """Add its numbers, and λ's histogram and quantiles, at the step of the epoch's number."""
        record = history[-1]
        numbers = {tag_of(name): getattr(record, name) for name in COLUMNS if name != "epoch"}
        summaries = _scalars(numbers | numbers_of_lambdas(lambdas))
        summaries += [
            _histogram(f"lambda/{layer}", each) for layer, each in lambdas.items() if each.total
        ]
        self.epochs.add(summaries, record.epoch)
        self.told = record.epoch

    def close(self, ending: Ending) -> None:
        """Do nothing: no file is open."""


class EventFile:
    """A file of TensorBoard's in ``folder``, whole after each addition.

    The package's own writer has a thread, which a full disk ends in the middle of a record.

    Args:
        folder: is made when there is something to write.
        purge_step: what other files in the folder say of this step and later ones is hidden.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.purge_step = purge_step
        machine, process = socket.gethostname(), os.getpid()
        self.path = folder / f"events.out.tfevents.{time.time():017.6f}.{machine}.{process}"
        self._length = 0

    def add(self, summaries: Sequence[Summary], step: int) -> None:
        """Write ``summaries``, all of them or, where that fails, none.

        Raises:
            OSError: the file cannot be written.
        """
        from tensorboard.compat.proto.event_pb2 import Event

        events = [] if self._length else self._first_events()
        events += [Event(wall_time=time.time(), step=step, summary=each) for each in summaries]
        encoded = _records(events)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab", buffering=0) as file:
            file.truncate(self._length)  # what is left of a write that failed
            written = file.write(encoded)
            while written < len(encoded):
                written += file.write(encoded[written:])
        self._length += len(encoded)

    def _first_events(self) -> list[Event]:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        return [
            Event(wall_time=time.time(), file_version="brain.Event:2"),
            Event(
                wall_time=time.time(),
                step=self.purge_step,
                session_log=SessionLog(status=SessionLog.START),
            ),
        ]


def _records(events: Sequence[Event]) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    encoded = io.BytesIO()
    writer = RecordWriter(encoded)
    for event in events:
        writer.write(event.SerializeToString())
    return encoded.getvalue()


def _scalars(numbers: Mapping[str, float]) -> list[Summary]:
    from torch.utils.tensorboard.summary import scalar

    return [scalar(tag, value) for tag, value in numbers.items() if not math.isnan(value)]


def _histogram(tag: str, histogram: Histogram) -> Summary:
    from torch.utils.tensorboard.summary import histogram_raw

    counts, edges = histogram.contiguous()
    middle = (histogram.low + histogram.high) / 2
    return histogram_raw(
        tag,
        min=edges[0],
        max=edges[-1],
        num=histogram.total,
        sum=float(middle @ histogram.count),
        sum_squares=float(middle**2 @ histogram.count),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
    )
