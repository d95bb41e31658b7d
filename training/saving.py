"""What each epoch leaves in ``--out-dir``; a run goes on where it cannot be written for a while."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from training.atomic_write import remove_leftovers
from training.checkpoints.files import Position
from training.checkpoints.format import Checkpoint, save_checkpoint
from training.checkpoints.lineage import go_back
from training.checkpoints.partial_epoch import EpochUnderWay
from training.errors import UserError
from training.records.config import config_of
from training.records.figures import Figures
from training.records.going_on import going_on
from training.records.histograms import Histogram
from training.records.history import EpochRecord
from training.records.out_dir import make_out_dir
from training.records.run_files import RunFiles
from training.records.step_axis import StepAxis
from training.records.steps import StepRecords
from training.records.tracker import Ending
from training.records.trackers import trackings_of
from training.run import Run
from training.settings import Settings


class Saving:
    """Writes records and checkpoints; it is for the main process, and a context manager.

    Of an epoch's files the text comes first, then the checkpoint, then the pictures and what is
    told to others, which take long or may fail: see ``RunFiles``.

    Attributes:
        failure: why the newest checkpoint is missing, None where it is there.
    """

    def __init__(self, files: RunFiles, steps: StepRecords, settings: Settings) -> None:
        self.files = files
        self.steps = steps
        self.settings = settings
        self.failure: UserError | None = None
        self._last_checkpoint = time.monotonic()

    def step(self, under_way: EpochUnderWay, lr: float) -> None:
        """Pass on the numbers of every ``--print-freq``-th batch; to be called after each."""
        if not self.files.trackers:
            return  # to read the numbers would wait for the device
        record = self.steps.record(under_way.epoch, under_way.batches, under_way.sums, lr)
        if record is not None:
            self.files.add_step(record)

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
        lambdas: Mapping[str, Histogram],
        bad_images: Mapping[str, str],
    ) -> None:
        """Write what there is after the last epoch of ``history``; say what cannot be written."""
        self.files.write_epoch(history, lambdas, bad_images)
        self._checkpoint(checkpoint)
        self.files.show_epoch(history, lambdas)

    def partial_epoch(self, checkpoint: Checkpoint, bad_images: Mapping[str, str]) -> Path | None:
        """Write a checkpoint within an epoch; return its path, None where it cannot be written."""
        self.files.write_partial_epoch(checkpoint.history, bad_images)
        return self._checkpoint(checkpoint)

    def end(self) -> None:
        """Raise UserError if the end of the run is in no checkpoint."""
        if self.failure is not None:
            raise UserError(f"{self.failure}; the last epochs are in no checkpoint")

    def _checkpoint(self, checkpoint: Checkpoint) -> Path | None:
        path = None
        with going_on("cannot write a checkpoint") as outcome:
            steps = self.steps.axis.at(checkpoint.epoch)
            path = save_checkpoint(replace(checkpoint, steps=steps), self.settings)
        self.failure = outcome.error
        if path is not None:
            self._last_checkpoint = time.monotonic()
        return path

    def __enter__(self) -> "Saving":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stopped = isinstance(error, SystemExit)
        failed = Ending.STOPPED if stopped else Ending.FAILED
        self.files.close(Ending.FINISHED if error is None else failed)


def begin_saving(
    run: Run,
    train_images: int,
    batches_per_epoch: int,
    start: Position,
    checkpoint: Checkpoint | None,
) -> AbstractContextManager[Saving | None]:
    """Make ``--out-dir``, tidy up after a kill, and print how to repeat the run.

    What is later there than the checkpoint that the run goes on from is set aside. In another
    process than the main one nothing is done, and there is no ``Saving``.

    Args:
        run: it is begun, or goes on.
        train_images: that the data set has.
        batches_per_epoch: that the run trains on.
        start: how far the run has come.
        checkpoint: that it goes on from, if from any.

    Raises:
        UserError: no file can be written there.
    """
    if not run.process.is_main:
        return nullcontext()
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
    partial = None if checkpoint is None else checkpoint.partial_epoch
    steps = StepRecords(
        settings.print_freq,
        axis=axis_of(checkpoint, start.epochs, batches_per_epoch),
        batches=start.batches,
        sums=None if partial is None else partial.score_sums,
    )
    files = RunFiles(
        out_dir=out_dir,
        config=config,
        trackers=trackings_of(
            settings=settings,
            config=config,
            axis=steps.axis,
            batches=start.batches,
            resumed=checkpoint is not None,
        ),
        figures=Figures(out_dir, settings.pdf_filename),
        resumed=checkpoint is not None,
    )
    files.begin([] if checkpoint is None else checkpoint.history)
    return Saving(files, steps, settings)


def axis_of(checkpoint: Checkpoint | None, epochs: int, batches_per_epoch: int) -> StepAxis:
    """Return what numbers the batches of a run that has had ``epochs`` epochs.

    Older checkpoints do not say of how many batches these were: of as many as now.
    """
    steps = None if checkpoint is None else checkpoint.steps
    if steps is None:
        steps = epochs * batches_per_epoch
    return StepAxis(epochs, steps, batches_per_epoch)
