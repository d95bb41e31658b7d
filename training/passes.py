"""One epoch: a pass over the training images, or over the validation images."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from training.checkpoints.partial_epoch import EpochUnderWay
from training.forward import Forward
from training.loading.batches import BatchLoader
from training.not_finite import SkippedSteps, check_counted, check_finite, finite
from training.processes.launcher import Process
from training.records.metrics import Scores, ScoreSums
from training.records.progress import Progress
from training.step import TrainingStep


def train_one_epoch(
    step: TrainingStep,
    batches: BatchLoader,
    process: Process,
    title: str,
    print_freq: int,
    under_way: EpochUnderWay,
    check: Callable[[], None],
) -> Scores:
    """Take a step for each batch that is left; return the epoch's scores over all processes.

    ``check`` is called after each step, when ``under_way`` tells of it.

    Raises:
        UserError: an image is unreadable, or the loss or a weight is not finite.
    """
    step.model.train()
    sums = under_way.sums
    with Progress(title, batches.images, print_freq, process.is_main) as progress:
        skipped = SkippedSteps(title, progress)
        for batch in batches:
            taken = step(batch, sums)
            under_way.batches += 1
            skipped.add(taken, under_way.batches)
            if progress.advance(batch.global_size):
                progress.show(finite(sums.scores(), title))
            check()
    scores = sums.scores_of_all(process)
    check_counted(scores, title)
    check_finite(step.model, scores, title)
    return scores


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: BatchLoader,
    forward: Forward,
    process: Process,
    title: str,
    print_freq: int,
    check: Callable[[], None] = lambda: None,
) -> Scores:
    """Return the scores over all processes, each image counted once.

    ``model`` is the network itself, not a wrapper that communicates: the processes may have
    different numbers of batches. ``check`` is called after each, where there is one process.

    Raises:
        UserError: an image is unreadable, or the loss is not finite.
    """
    model.eval()
    sums = ScoreSums(process.device)
    with Progress(title, batches.images, print_freq, process.is_main) as progress:
        for batch in batches:
            logits = forward(model, batch.images)
            sums.add(cross_entropy(logits, batch.targets), logits, batch.targets)
            if progress.advance(batch.global_size):
                progress.show(sums.scores())
            if process.world_size == 1:
                check()
    return finite(sums.scores_of_all(process), title)
