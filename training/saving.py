"""What each epoch leaves in ``--out-dir``; a run goes on where it cannot be written for a while."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from training.atomic_write import WriteError, remove_leftovers
from training.checkpoints.format import Checkpoint, save_checkpoint
from training.checkpoints.lineage import go_back
from training.errors import UserError
from training.records.config import config_of
from training.records.history import EpochRecord
from training.records.out_dir import make_out_dir
from training.records.run_files import RunFiles
from training.run import Run
from training.settings import Settings


class Saving:
    """Writes records and checkpoints; it is for the main process.

    The checkpoint is the last of an epoch's files: a run that is killed in between repeats the
    epoch and writes the same again.

    Attributes:
        failure: why the newest checkpoint is missing, None where it is there.
    """

    def __init__(self, files: RunFiles, settings: Settings) -> None:
        self.files = files
        self.settings = settings
        self.failure: WriteError | None = None
        self._last_checkpoint = time.monotonic()

    def is_due(self) -> bool:
        """Return whether ``--checkpoint-minutes`` have gone by since the last time, or checkpoint.

        True is returned once a time.
        """
        minutes = self.settings.checkpoint_minutes
        now = time.monotonic()
        if minutes is None or now - self._last_checkpoint < 60 * minutes:
            return False
        self._last_checkpoint = now
        return True

    def epoch(
        self,
        checkpoint: Checkpoint,
        history: Sequence[EpochRecord],
        lambdas: Mapping[str, Tensor],
        bad_images: Mapping[str, str],
    ) -> None:
        """Write what there is after the last epoch of ``history``; say what cannot be written."""
        with self._going_on():
            self.files.add_epoch(history, lambdas, bad_images)
        self._checkpoint(checkpoint)

    def partial_epoch(self, checkpoint: Checkpoint, bad_images: Mapping[str, str]) -> Path | None:
        """Write a checkpoint within an epoch; return its path, None where it cannot be written."""
        with self._going_on():
            self.files.add_partial_epoch(bad_images)
        return self._checkpoint(checkpoint)

    def end(self) -> None:
        """Raise UserError if the end of the run is in no checkpoint."""
        if self.failure is not None:
            raise UserError(f"{self.failure}; the last epochs are in no checkpoint")

    def _checkpoint(self, checkpoint: Checkpoint) -> Path | None:
        with self._going_on():
            path = save_checkpoint(checkpoint, self.settings)
            self.failure = None
            self._last_checkpoint = time.monotonic()
            return path
        return None

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except WriteError as error:
            self.failure = error
            print(f"{error}; training goes on", file=sys.stderr, flush=True)


def begin_saving(
    run: Run, train_images: int, start_epoch: int, checkpoint: Checkpoint | None
) -> Saving:
    """Make ``--out-dir``, tidy up after a kill, and print how to repeat the run.

    What is later there than the checkpoint that the run goes on from is set aside.

    Args:
        run: it is begun, or goes on.
        train_images: that the data set has.
        start_epoch: number of epochs that the run has had.
        checkpoint: that it goes on from, if from any.

    Raises:
        UserError: no file can be written there.
    """
    settings = run.settings
    out_dir = Path(settings.out_dir)
    curves = (out_dir / settings.pdf_filename).parent
    make_out_dir(settings.out_dir, curves)
    for folder in (out_dir, curves):
        remove_leftovers(folder)
    gone_back = None if checkpoint is None else go_back(out_dir, checkpoint)
    if gone_back is not None:
        print(gone_back, flush=True)
    config = config_of(run, train_images)
    print(f"to repeat this run in another --out-dir: {config.command}", flush=True)
    files = RunFiles(
        out_dir=out_dir,
        config=config,
        pdf_filename=settings.pdf_filename,
        tensorboard=settings.tensorboard,
        start_epoch=start_epoch,
        resumed=checkpoint is not None,
    )
    return Saving(files, settings)
