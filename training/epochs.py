"""The epochs of a training run, and the files that each of them leaves."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from training.bad_images import LIST_NAME, list_bad_images, skipped_of_all
from training.batches import BatchLoader
from training.checkpoints import Checkpoint, save_checkpoint
from training.distributed import Process, broadcast_from_main
from training.engine import evaluate, train_one_epoch
from training.errors import UserError
from training.history import EpochRecord, best_record, write_log
from training.lambdas import SampledBatches, lambdas_of
from training.output import LOG_NAME, make_out_dir
from training.plots import write_curves
from training.report import Report
from training.seeding import derive_seed, seed_everything
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
    """Train ``model`` until the last epoch, from the first or from the one after ``checkpoint``.

    Everything random in an epoch follows from ``seed``, the epoch and the rank, so that a
    resumed run goes on as the one that was interrupted would have.

    Raises:
        UserError: the loss is not finite, an image is unreadable, or a file cannot be written.
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
    step = make_training_step(model, checkpoint, settings, process)
    if process.is_main:
        make_out_dir(settings)
        report = Report(settings, process, seed, start_epoch, resumed=checkpoint is not None)
    for epoch in range(start_epoch, len(learning_rates)):
        seed_everything(derive_seed(seed, "epoch", epoch, process.rank))
        set_learning_rate(step.optimizer, learning_rates[epoch])
        title = f"epoch {epoch + 1}/{len(learning_rates)}"
        start = time.perf_counter()
        train_batches.set_epoch(epoch)
        measured = MeasuredBatches(train_batches, process)
        train_scores = train_one_epoch(step, measured, process, title, settings.print_freq)
        train_seconds = time.perf_counter() - start
        usage = measured.usage_of_all()
        # Each process has running statistics of its own; those of the main one are saved.
        broadcast_from_main(step.buffers, process)
        sampled = SampledBatches(val_batches, process)
        val_scores = evaluate(
            *(step.result, sampled, step.forward, process),
            *(f"{title} validation", settings.print_freq),
        )
        skipped = skipped_of_all([train_batches.bad_images, val_batches.bad_images], process)
        seconds = time.perf_counter() - start
        history.append(
            EpochRecord.of(
                *(epoch + 1, learning_rates[epoch], train_scores, val_scores),
                *(seconds, train_seconds, usage),
            )
        )
        if process.is_main:
            bad = f", {len(skipped)} bad images skipped" if skipped else ""
            print(f"{title}: {history[-1]}{bad}", flush=True)
            list_bad_images(skipped, Path(settings.out_dir, LIST_NAME))
            write_epoch(step, history, settings, seed)
            report.add_epoch(history[-1], lambdas_of(step.result, sampled.sample))
    if process.is_main:
        print(summary(history, settings), flush=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def write_epoch(
    step: TrainingStep, history: Sequence[EpochRecord], settings: Settings, seed: int
) -> None:
    """Write the checkpoint, the log and the curves after the last epoch of ``history``.

    Raises:
        UserError: a file cannot be written.
    """
    save_checkpoint(
        *(step.model, step.optimizer, history, settings, seed), step.scaler, step.averaged
    )
    write_log(history, Path(settings.out_dir, LOG_NAME))
    write_curves(history, Path(settings.out_dir, settings.pdf_filename))


def summary(history: Sequence[EpochRecord], settings: Settings) -> str:
    """Return what the run came to, in a line."""
    best = best_record(history)
    return (
        f"best top-1 error {best.val_err1:.2f}% (top-5 {best.val_err5:.2f}%) after epoch "
        f"{best.epoch} of {history[-1].epoch}; log, curves and checkpoints in {settings.out_dir}"
    )
