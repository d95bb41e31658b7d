"""The epochs of a training run, from the first or from where an earlier start left it."""

import signal
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from training.batches import BatchLoader
from training.checkpoints import Checkpoint
from training.distributed import Process, broadcast_from_main
from training.engine import evaluate, train_one_epoch
from training.errors import UserError
from training.history import EpochRecord, best_record
from training.interruption import Interrupted, Interruption
from training.lambdas import SampledBatches, lambdas_of
from training.metrics import scores_from_sums
from training.not_finite import check_finite
from training.output import make_out_dir
from training.partial_epoch import EpochUnderWay, begin_epoch, order_of
from training.report import Report
from training.saving import Saving
from training.settings import Settings
from training.step import TrainingStep, make_training_step
from training.usage import MeasuredBatches


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
    with Interruption(process) as interruption:
        for epoch in range(start_epoch, len(learning_rates)):
            set_learning_rate(step.optimizer, learning_rates[epoch])
            under_way, partial = begin_epoch(epoch, partial, seed, process), None
            train_batches.set_epoch(epoch, under_way.batches)
            try:
                record, lambdas = run_epoch(
                    *(step, train_batches, val_batches, epoch, under_way),
                    *(settings, process, interruption.check),
                )
            except Interrupted as interrupted:
                left = under_way.partial(order_of(settings, seed, process.world_size), process)
                so_far = scores_from_sums(left.score_sums, process.world_size)
                check_finite(step.model, so_far, f"epoch {epoch + 1}")
                if saving is not None:
                    path = saving.partial_epoch(
                        step.checkpoint(epoch, history, settings, seed, left)
                    )
                    print(farewell(interrupted, under_way, epoch, path), flush=True)
                raise SystemExit(interrupted.exit_code) from None
            history.append(record)
            if saving is not None:
                saving.epoch(step.checkpoint(epoch + 1, history, settings, seed), history, lambdas)
    if saving is not None:
        saving.end()
        print(summary(history, settings), flush=True)


def run_epoch(
    step: TrainingStep,
    train_batches: BatchLoader,
    val_batches: BatchLoader,
    epoch: int,
    under_way: EpochUnderWay,
    settings: Settings,
    process: Process,
    check: Callable[[], None],
) -> tuple[EpochRecord, dict[str, Tensor]]:
    """Train for the rest of an epoch and validate; return what it came to, and its λ by layer.

    Only the main process prints, and has the λ.

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
    record = EpochRecord.of(
        *(epoch + 1, settings.learning_rates[epoch], train_scores, val_scores),
        *(under_way.seconds, train_seconds, usage),
    )
    if not process.is_main:
        return record, {}
    print(f"{title}: {record}", flush=True)
    return record, lambdas_of(step.result, sampled.sample)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def farewell(interrupted: Interrupted, under_way: EpochUnderWay, epoch: int, path: object) -> str:
    """Return what a run says that was stopped by a signal, in a line."""
    name = signal.Signals(interrupted.signum).name
    left = "no checkpoint of it" if path is None else f"{path}; go on with --resume auto"
    return f"stopped by {name} after batch {under_way.batches} of epoch {epoch + 1}: {left}"


def summary(history: Sequence[EpochRecord], settings: Settings) -> str:
    """Return what the run came to, in a line."""
    best = best_record(history)
    return (
        f"best top-1 error {best.val_err1:.2f}% (top-5 {best.val_err5:.2f}%) after epoch "
        f"{best.epoch} of {history[-1].epoch}; log, curves and checkpoints in {settings.out_dir}"
    )
