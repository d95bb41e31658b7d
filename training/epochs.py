"""The epochs of a training run, from the first or from where an earlier start left it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.checkpoints.format import Checkpoint
from training.checkpoints.partial_epoch import EpochUnderWay, begin_epoch, order_of
from training.errors import UserError
from training.loading.bad_images import skipped_of_all
from training.loading.batches import BatchLoader
from training.not_finite import check_finite
from training.passes import evaluate, train_one_epoch
from training.processes.interruption import Interrupted, Interruption, die_of
from training.processes.launcher import Process, broadcast_from_main
from training.processes.stop_signals import caught_stop_signals
from training.records.history import EpochRecord, best_record
from training.records.lambdas import SampledBatches, lambdas_of
from training.records.metrics import scores_from_sums
from training.records.out_dir import make_out_dir
from training.records.run_files import Report
from training.records.usage import MeasuredBatches
from training.saving import Saving
from training.settings import Settings
from training.step import TrainingStep, make_training_step


def train_epochs(
    model: nn.Module,
    train_batches: BatchLoader,
    val_batches: BatchLoader,
    checkpoint: Checkpoint | None,
    settings: Settings,
    process: Process,
    seed: int,
) -> None:
    """Train ``model`` until the last epoch, from the first or from where ``checkpoint`` is.

    Everything random in an epoch follows from ``seed``, the epoch and the rank, so that a
    resumed run goes on as the one that was interrupted would have.

    Raises:
        UserError: the loss is not finite, an image is unreadable, or the last checkpoint cannot
            be written.
        SystemExit: a signal has interrupted the run, and its checkpoint is written.
    """
    learning_rates = settings.learning_rates
    history, start_epoch = [], settings.start_epoch
    if checkpoint is not None:
        history, start_epoch = list(checkpoint.history), checkpoint.epoch
    if start_epoch >= len(learning_rates):
        raise UserError(
            f"--resume {settings.resume}: has had {start_epoch} epochs, and the run is of "
            f"{len(learning_rates)}; raise --epochs to go on"
        )
    partial = None if checkpoint is None else checkpoint.partial_epoch
    step = make_training_step(model, checkpoint, settings, process)
    saving = None
    if process.is_main:
        make_out_dir(settings)
        report = Report(settings, process, seed, start_epoch, resumed=checkpoint is not None)
        saving = Saving(report, settings)
    with caught_stop_signals(second=die_of) as signals:
        interruption = Interruption(process, signals)
        for epoch in range(start_epoch, len(learning_rates)):
            set_learning_rate(step.optimizer, learning_rates[epoch])
            under_way, partial = begin_epoch(epoch, partial, seed, process), None
            train_batches.set_epoch(epoch, under_way.batches)
            try:
                result = run_epoch(
                    *(step, train_batches, val_batches, epoch, under_way),
                    *(settings, process, interruption.check),
                )
            except Interrupted as interrupted:
                left = under_way.partial(order_of(settings, seed, process.world_size), process)
                so_far = scores_from_sums(left.score_sums, process.world_size)
                check_finite(step.model, so_far, f"epoch {epoch + 1}")
                skipped = skipped_of_all([train_batches.bad_images], process)
                if saving is not None:
                    path = saving.partial_epoch(
                        step.checkpoint(epoch, history, settings, seed, left), skipped
                    )
                    where = f"batch {left.batches} of epoch {epoch + 1}"
                    print(farewell(interrupted, where, path), flush=True)
                raise SystemExit(interrupted.exit_code) from None
            history.append(result.record)
            if saving is not None:
                saving.epoch(
                    *(step.checkpoint(epoch + 1, history, settings, seed), history),
                    *(result.lambdas, result.bad_images),
                )
            if epoch + 1 < len(learning_rates):
                stop_if_interrupted(interruption, epoch, settings, saving)
    if saving is not None:
        saving.end()
        print(summary(history, settings), flush=True)


@dataclass(frozen=True)
class EpochResult:
    """What an epoch came to.

    Attributes:
        record: its scores and times.
        lambdas: λ [N, C] by layer after it; of the main process only.
        bad_images: the reasons by name of those that were skipped.
    """

    record: EpochRecord
    lambdas: Mapping[str, Tensor]
    bad_images: Mapping[str, str]


def run_epoch(
    step: TrainingStep,
    train_batches: BatchLoader,
    val_batches: BatchLoader,
    epoch: int,
    under_way: EpochUnderWay,
    settings: Settings,
    process: Process,
    check: Callable[[], None],
) -> EpochResult:
    """Train for the rest of an epoch and validate.

    Raises:
        Interrupted: from ``check``, which is called after each batch; ``under_way`` then says
            how far the epoch has come.
    """
    title = f"epoch {epoch + 1}/{len(settings.learning_rates)}"
    measured = MeasuredBatches(train_batches, process)
    train_scores = train_one_epoch(
        step, measured, process, title, settings.print_freq, under_way, check
    )
    train_seconds = under_way.seconds
    usage = measured.usage_of_all()
    # Each process has running statistics of its own; those of the main one are saved.
    broadcast_from_main(step.buffers, process)
    sampled = SampledBatches(val_batches, process)
    val_scores = evaluate(
        *(step.result, sampled, step.forward, process),
        *(f"{title} validation", settings.print_freq, check),
    )
    skipped = skipped_of_all([train_batches.bad_images, val_batches.bad_images], process)
    record = EpochRecord.of(
        *(epoch + 1, settings.learning_rates[epoch], train_scores, val_scores),
        *(under_way.seconds, train_seconds, usage),
    )
    lambdas = {}
    if process.is_main:
        bad = f", {len(skipped)} bad images skipped" if skipped else ""
        print(f"{title}: {record}{bad}", flush=True)
        lambdas = lambdas_of(step.result, sampled.sample)
    return EpochResult(record, lambdas, skipped)


def stop_if_interrupted(
    interruption: Interruption, epoch: int, settings: Settings, saving: Saving | None
) -> None:
    """Raise SystemExit if a signal has come that no batch has seen, after an epoch's files."""
    try:
        interruption.check_now()
    except Interrupted as interrupted:
        if saving is not None:
            checkpoint = settings.out_dir if saving.failure is None else None
            print(farewell(interrupted, f"epoch {epoch + 1}", checkpoint), flush=True)
        raise SystemExit(interrupted.exit_code) from None


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def farewell(interrupted: Interrupted, where: str, checkpoint: object) -> str:
    """Return what a run says that was stopped by a signal, in a line."""
    left = f"{checkpoint}; go on with --resume auto" if checkpoint else "no checkpoint of it"
    return f"stopped by {interrupted} after {where}: {left}"


def summary(history: Sequence[EpochRecord], settings: Settings) -> str:
    """Return what the run came to, in a line."""
    best = best_record(history)
    return (
        f"best top-1 error {best.val_err1:.2f}% (top-5 {best.val_err5:.2f}%) after epoch "
        f"{best.epoch} of {history[-1].epoch}; log, curves and checkpoints in {settings.out_dir}"
    )
