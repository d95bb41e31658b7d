"""The epochs of a training run, from the first or from where an earlier start left it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from training.checkpoints.files import Position
from training.checkpoints.format import Checkpoint
from training.checkpoints.lineage import has_best
from training.checkpoints.partial_epoch import EpochUnderWay, begin_epoch
from training.errors import UserError
from training.loading.bad_images import BadImages, skipped_of_all
from training.loading.batches import BatchLoader
from training.not_finite import check_finite
from training.passes import evaluate_each, train_one_epoch
from training.processes.interruption import Interrupted, Interruption, die_of, never
from training.processes.ranks import broadcast_from_main
from training.processes.stop_signals import caught_stop_signals
from training.records.histograms import Histogram
from training.records.history import EpochRecord
from training.records.lambdas import SampledBatches, histograms_of
from training.records.lines import farewell, summary
from training.records.metrics import scores_from_sums
from training.records.usage import MeasuredBatches
from training.run import Run
from training.saving import Saving, begin_saving
from training.settings import Settings
from training.step import TrainingStep, make_training_step


def train_epochs(
    model: nn.Module,
    train_batches: BatchLoader,
    val_batches: BatchLoader,
    checkpoint: Checkpoint | None,
    run: Run,
) -> None:
    """Train ``model`` until the last epoch, from the first or from where ``checkpoint`` is.

    Everything random in an epoch follows from the run's seed, the epoch and the rank, so that a
    resumed run goes on as the one that was interrupted would have.

    Raises:
        UserError: the loss is not finite, an image is unreadable, or the last checkpoint cannot
            be written.
        SystemExit: a signal has interrupted the run, and its checkpoint is written.
    """
    settings = run.settings
    learning_rates = settings.learning_rates
    history, start_epoch = [], settings.start_epoch
    if checkpoint is not None:
        history, start_epoch = list(checkpoint.history), checkpoint.epoch
    if start_epoch >= len(learning_rates):
        raise UserError(
            f"--resume {settings.resume}: has had {start_epoch} epochs, and the run is of "
            f"{len(learning_rates)}; raise --epochs to go on"
        )
    left = None if checkpoint is None else checkpoint.partial_epoch
    step = make_training_step(model, checkpoint, run)
    sampler = train_batches.sampler
    with (
        caught_stop_signals(second=die_of) as signals,
        begin_saving(
            run=run,
            train_images=sampler.num_samples,
            batches_per_epoch=train_batches.batches_of_epoch,
            start=Position(start_epoch, 0 if left is None else left.batches),
            checkpoint=checkpoint,
        ) as saving,
    ):
        is_due = never if saving is None else saving.is_due
        interruption = Interruption(run.process, signals, is_due)
        for epoch in range(start_epoch, len(learning_rates)):
            under_way, left = begin_epoch(epoch, left, run, sampler), None
            train_batches.set_epoch(epoch, under_way.batches)
            save = partial(save_within, under_way, step, history, train_batches.bad_images, saving)
            try:
                result = run_epoch(
                    step=step,
                    train_batches=train_batches,
                    val_batches=val_batches,
                    under_way=under_way,
                    check=partial(after_step, step, under_way, saving, interruption, save),
                )
            except Interrupted as interrupted:
                path = save()
                if saving is not None:
                    where = f"batch {under_way.batches} of epoch {epoch + 1}"
                    print(farewell(str(interrupted), where, path), flush=True)
                raise SystemExit(interrupted.exit_code) from None
            history.append(result.record)
            if saving is not None:
                saving.epoch(
                    checkpoint=step.checkpoint(epoch + 1, history),
                    history=history,
                    lambdas=result.lambdas,
                    bad_images=result.bad_images,
                )
            if epoch + 1 < len(learning_rates):
                stop_if_interrupted(interruption, epoch, saving)
        if saving is not None:
            saving.end()
    if run.process.is_main:
        print(come_to(history, settings), flush=True)


def come_to(history: Sequence[EpochRecord], settings: Settings) -> str:
    """Return what a run came to that has left its files."""
    out_dir = settings.out_dir
    return summary(history, out_dir, has_best=has_best(Path(out_dir), history))


def after_step(
    step: TrainingStep,
    under_way: EpochUnderWay,
    saving: Saving | None,
    interruption: Interruption,
    save: Callable[[], object],
) -> None:
    """Pass on a batch's numbers and write a checkpoint where one is due.

    Raises:
        Interrupted: a signal has come.
    """
    if saving is not None:
        saving.step(under_way, lr=step.optimizer.param_groups[0]["lr"])
    if interruption.check():
        save()


@dataclass(frozen=True)
class EpochResult:
    """What an epoch came to.

    Attributes:
        record: its scores and times.
        lambdas: histograms of λ by layer after it; of the main process only.
        bad_images: the reasons by name of those that were skipped.
    """

    record: EpochRecord
    lambdas: Mapping[str, Histogram]
    bad_images: Mapping[str, str]


def run_epoch(
    step: TrainingStep,
    train_batches: BatchLoader,
    val_batches: BatchLoader,
    under_way: EpochUnderWay,
    check: Callable[[], None],
) -> EpochResult:
    """Train for the rest of an epoch and validate.

    Raises:
        Interrupted: from ``check``, which is called after each batch; ``under_way`` then says
            how far the epoch has come.
    """
    run, epoch = step.run, under_way.epoch
    recipe, batches = run.settings.recipe, train_batches.batches_of_epoch
    title = f"epoch {epoch + 1}/{recipe.epochs}"
    measured = MeasuredBatches(train_batches, run.process)
    train_scores = train_one_epoch(
        step=step,
        batches=measured,
        batches_of_epoch=batches,
        title=title,
        under_way=under_way,
        check=check,
    )
    under_way.end_training()
    usage = measured.usage_of_all()
    # Each process has running statistics of its own; those of the main one are saved.
    broadcast_from_main(step.buffers, run.process)
    sampled = SampledBatches(val_batches, run.process)
    val, *averaged_val = evaluate_each(
        models=step.judged, batches=sampled, run=run, title=f"{title} validation", check=check
    )
    skipped = skipped_of_all([train_batches.bad_images, val_batches.bad_images], run.process)
    record = EpochRecord.of(
        epoch=epoch + 1,
        lr=recipe.learning_rate(epoch, batch=0, batches=batches),
        train=train_scores,
        val=val,
        averaged_val=averaged_val[0] if averaged_val else None,
        seconds=under_way.seconds,
        train_seconds=under_way.train_seconds,
        usage=usage,
    )
    lambdas = {}
    if run.process.is_main:
        bad = f", {len(skipped)} bad images skipped" if skipped else ""
        print(f"{title}: {record}{bad}", flush=True)
        lambdas = histograms_of(step.judged[record.averaged_is_better], sampled.sample)
    return EpochResult(record, lambdas, skipped)


def save_within(
    under_way: EpochUnderWay,
    step: TrainingStep,
    history: Sequence[EpochRecord],
    bad_images: BadImages | None,
    saving: Saving | None,
) -> Path | None:
    """Write a checkpoint within an epoch; every process must call it.

    Returns:
        Its path; None of the processes that do not write, and where it cannot be written.

    Raises:
        UserError: the loss or a weight is not finite.
    """
    checkpoint = checkpoint_within(under_way, step, history)
    skipped = skipped_of_all([bad_images], step.run.process)
    return None if saving is None else saving.partial_epoch(checkpoint, skipped)


def checkpoint_within(
    under_way: EpochUnderWay, step: TrainingStep, history: Sequence[EpochRecord]
) -> Checkpoint:
    """Return what it takes to go on within an epoch; every process must call it.

    Raises:
        UserError: the loss or a weight is not finite.
    """
    left = under_way.partial(step.run)
    so_far = scores_from_sums(left.score_sums, step.run.process.world_size)
    check_finite(step.model, step.scaler, so_far, f"epoch {under_way.epoch + 1}")
    return step.checkpoint(under_way.epoch, history, left)


def stop_if_interrupted(interruption: Interruption, epoch: int, saving: Saving | None) -> None:
    """Raise SystemExit if a signal has come that no batch has seen, after an epoch's files."""
    try:
        interruption.check_now()
    except Interrupted as interrupted:
        if saving is not None:
            checkpoint = saving.settings.out_dir if saving.failure is None else None
            print(farewell(str(interrupted), f"epoch {epoch + 1}", checkpoint), flush=True)
        raise SystemExit(interrupted.exit_code) from None
