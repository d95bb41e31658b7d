"""One epoch: a pass over the training images, or over the validation images."""

from collections.abc import Callable, Sequence
from itertools import zip_longest

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from training.checkpoints.partial_epoch import EpochUnderWay
from training.loading.batches import Batches
from training.not_finite import SkippedSteps, check_counted, check_finite, check_scale, finite
from training.optimizer import set_learning_rate
from training.records.metrics import Scores, ScoreSums
from training.records.predictions import PredictionLog
from training.records.progress import Progress
from training.run import Run
from training.step import TrainingStep


def train_one_epoch(
    step: TrainingStep,
    batches: Batches,
    batches_of_epoch: int,
    title: str,
    under_way: EpochUnderWay,
    check: Callable[[], None],
) -> Scores:
    """Take a step for each batch that is left; return the epoch's scores over all processes.

    Args:
        step: what is done with a batch.
        batches: the rest of the epoch.
        batches_of_epoch: how many the whole epoch has.
        title: of the epoch, for a person.
        under_way: how far the epoch has come, counted on after each step.
        check: called after each step, when ``under_way`` tells of it.

    Raises:
        UserError: an image is unreadable, or the loss or a weight is not finite.
    """
    step.model.train()
    sums, recipe = under_way.sums, step.run.settings.recipe
    # Of the last step, where all have been taken: a run can be stopped while it validates.
    last = max(under_way.batches - 1, 0)
    set_learning_rate(step.optimizer, recipe.learning_rate(under_way.epoch, last, batches_of_epoch))
    with progress_of(title, batches, step.run) as progress:
        skipped = SkippedSteps(title, progress)
        for batch in batches:
            lr = recipe.learning_rate(under_way.epoch, under_way.batches, batches_of_epoch)
            set_learning_rate(step.optimizer, lr)
            taken = step(batch, sums)
            under_way.batches += 1
            skipped.add(taken, under_way.batches)
            if progress.advance(batch.global_size):
                check_scale(step.scaler, title)
                progress.show(finite(sums.scores(), title))
            check()
    scores = sums.scores_of_all(step.run.process)
    check_counted(scores, title)
    check_finite(step.model, step.scaler, scores, title)
    return scores


def evaluate(
    model: nn.Module, batches: Batches, run: Run, title: str, log: PredictionLog
) -> Scores:
    """Return the scores of ``model``, whose predictions are added to ``log``.

    See ``evaluate_each``.
    """
    (scores,) = evaluate_each([model], batches, run, title, logs=[log])
    return scores


@torch.no_grad()
def evaluate_each(
    models: Sequence[nn.Module],
    batches: Batches,
    run: Run,
    title: str,
    check: Callable[[], None] = lambda: None,
    logs: Sequence[PredictionLog] = (),
) -> list[Scores]:
    """Return the scores of each model over all processes, each image counted once.

    One pass over the images serves all ``models``, which are the networks themselves, not
    wrappers that communicate: the processes may have different numbers of batches. ``check`` is
    called after each, where there is one process. The predictions of each model are added to its
    one of the ``logs``, where there are any.

    Raises:
        UserError: an image is unreadable, or the loss is not finite.
    """
    sums = [ScoreSums(run.process.device) for _ in models]
    for model in models:
        model.eval()
    with progress_of(title, batches, run) as progress:
        for batch in batches:
            for model, its_sums, log in zip_longest(models, sums, logs):
                logits = run.settings.forward(model, batch.images)
                its_sums.add(cross_entropy(logits, batch.targets), logits, batch.targets)
                if log is not None:
                    log.add(logits, batch.targets)
            if progress.advance(batch.global_size):
                progress.show(sums[0].scores())
            if run.process.world_size == 1:
                check()
    return [finite(each.scores_of_all(run.process), title) for each in sums]


def progress_of(title: str, batches: Batches, run: Run) -> Progress:
    """Return what shows how far a pass over ``batches`` has come, in the main process."""
    return Progress(title, batches.images, run.settings.print_freq, shown=run.process.is_main)
