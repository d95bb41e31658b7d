"""One epoch: a pass over the training images, or over the validation images."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from training.batches import BatchLoader
from training.distributed import Process
from training.forward import Forward
from training.metrics import Scores, ScoreSums
from training.not_finite import SkippedSteps, check_counted, check_finite, finite
from training.progress import Progress
from training.step import TrainingStep


def train_one_epoch(
    step: TrainingStep, batches: BatchLoader, process: Process, title: str, print_freq: int
) -> Scores:
    """Take a step for each batch; return the scores over all processes.

    Raises:
        UserError: an image is unreadable, or the loss or a weight is not finite.
    """
    step.model.train()
    sums = ScoreSums(process.device)
    with Progress(title, batches.images, print_freq, process.is_main) as progress:
        skipped = SkippedSteps(title, progress)
        for batch in batches:
            skipped.add(taken=step(batch, sums))
            if progress.advance(batch.global_size):
                progress.show(finite(sums.scores(), title))
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
) -> Scores:
    """Return the scores over all processes, each image counted once.

    ``model`` is the network itself, not a wrapper that communicates: the processes may have
    different numbers of batches.

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
    return finite(sums.scores_of_all(process), title)
