"""The files that each epoch leaves; a run goes on where they cannot be written for a while."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from training.atomic_write import WriteError
from training.checkpoints.format import Checkpoint, save_checkpoint
from training.errors import UserError
from training.loading.bad_images import LIST_NAME, list_bad_images
from training.records.curves import write_curves
from training.records.history import EpochRecord, write_log
from training.records.out_dir import LOG_NAME
from training.records.run_files import Report
from training.settings import Settings


class Saving:
    """Writes the files of ``--out-dir``; it is for the main process.

    The checkpoint is the last of them: a run that is killed in between repeats the epoch and
    writes the same again.
    """

    def __init__(self, report: Report, settings: Settings) -> None:
        self.report = report
        self.settings = settings
        self.failure: WriteError | None = None
        self._bad_images_path = Path(settings.out_dir, LIST_NAME)

    def epoch(
        self,
        checkpoint: Checkpoint,
        history: Sequence[EpochRecord],
        lambdas: Mapping[str, Tensor],
        bad_images: Mapping[str, str],
    ) -> None:
        """Write what there is after the last epoch of ``history``; say what cannot be written."""
        with self._going_on():
            list_bad_images(bad_images, self._bad_images_path)
            write_log(history, Path(self.settings.out_dir, LOG_NAME))
            write_curves(history, Path(self.settings.out_dir, self.settings.pdf_filename))
            self.report.add_epoch(history[-1], lambdas)
        self._checkpoint(checkpoint)

    def partial_epoch(self, checkpoint: Checkpoint, bad_images: Mapping[str, str]) -> Path | None:
        """Write a checkpoint within an epoch; return its path, None where it cannot be written."""
        with self._going_on():
            self.report.begin()
            list_bad_images(bad_images, self._bad_images_path)
        return self._checkpoint(checkpoint)

    def end(self) -> None:
        """Raise UserError if the end of the run is in no checkpoint."""
        if self.failure is not None:
            raise UserError(f"{self.failure}; the last epochs are in no checkpoint")

    def _checkpoint(self, checkpoint: Checkpoint) -> Path | None:
        with self._going_on():
            path = save_checkpoint(checkpoint, self.settings)
            self.failure = None
            return path
        return None

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except WriteError as error:
            self.failure = error
            print(f"{error}; training goes on", file=sys.stderr, flush=True)
