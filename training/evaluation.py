"""The evaluation of weights on the validation images (``--evaluate``), and the files of it."""

from pathlib import Path

from torch import nn

from training.checkpoints.format import or_num_classes
from training.checkpoints.recipe import recipe_of_args
from training.checkpoints.weights import Weights
from training.data import class_count, make_val_batches
from training.errors import UserError
from training.images.datasets import Data
from training.kernel_compilation import compile_kernels_of_run
from training.loading.bad_images import skipped_of_all
from training.passes import evaluate
from training.records.bad_images import BAD_IMAGES_NAME, list_bad_images
from training.records.confusion import write_confusion
from training.records.evaluation import EVALUATION_NAME, Evaluation, write_evaluation
from training.records.out_dir import make_out_dir
from training.records.predictions import PredictionLog, write_predictions
from training.run import Run
from training.settings import Settings

PREPARATION = ("image_size", "val_size", "crop_pct", "interpolation", "mean", "std")
"""What a recipe says of validation images."""


def output_count(weights: Weights, data: Data, num_classes: int | None) -> int:
    """Return the number of outputs of the network of ``weights``, which is evaluated on ``data``.

    ``data`` has the classes of the weights, where they know any. Otherwise there are as many
    outputs as classes, unless ``--num-classes`` is given.

    Raises:
        UserError: the weights have another number of outputs.
    """
    if num_classes is None and weights.classes == data.classes[: weights.outputs]:
        return weights.outputs
    count = class_count(num_classes, data)
    if weights.outputs != count:
        raise UserError(
            f"{weights.origin}: has {weights.outputs} classes, not {count}; use its data set"
            f"{or_num_classes(weights.outputs, len(data.classes))}"
        )
    return count


def line_of_preparation(weights: Weights, settings: Settings) -> str | None:
    """Return what to tell where the run of ``weights`` prepared validation images otherwise."""
    theirs = None if weights.args is None else recipe_of_args(weights.args)
    if theirs is None:
        return None
    differences = [
        f"{name} {getattr(theirs, name)}, here {getattr(settings.recipe, name)}"
        for name in PREPARATION
        if getattr(theirs, name) != getattr(settings.recipe, name)
    ]
    if not differences:
        return None
    return f"{weights.origin}: its run prepared validation images otherwise: " + "; ".join(
        differences
    )


def evaluate_weights(model: nn.Module, weights: Weights, data: Data, run: Run) -> None:
    """Print the scores of ``model`` on the validation images of ``data``; write the files of them.

    They go to ``--out-dir``, in place of earlier ones: ``evaluation.json``, the errors by class,
    the confusion matrix and its picture, and the pairs of classes that are confused most.

    Args:
        model: the network, which has the ``weights``.
        weights: where its tensors are from.
        data: the images; its classes are the first outputs of the network.
        run: this run.

    Raises:
        UserError: the folder cannot be written, of which it is sure before it begins; an image
            is unreadable, or the loss is not finite.
    """
    settings, process = run.settings, run.process
    out_dir = Path(settings.out_dir)
    val_batches = make_val_batches(data.val, run)
    if process.is_main:
        make_out_dir(settings.out_dir)
    compile_kernels_of_run(model, run, train_batches=None, val_batches=val_batches)
    if settings.compile:
        model.compile()
    log = PredictionLog()
    scores = evaluate(model, val_batches, run, title="evaluation", log=log)
    predictions = log.of_all(process, data.classes, outputs=weights.outputs)
    skipped = skipped_of_all([val_batches.bad_images], process)
    if not process.is_main:
        return
    evaluation = Evaluation(
        top1_error=scores.err1,
        top5_error=scores.err5,
        loss=scores.loss,
        images=scores.images,
        skipped_images=len(skipped),
        averaged=weights.averaged,
        checkpoint=weights.source,
        dataset=settings.dataset,
        data=settings.data if settings.val_data is None else settings.val_data,
    )
    list_bad_images(skipped, out_dir / BAD_IMAGES_NAME)
    print(evaluation, flush=True)
    write_evaluation(evaluation, out_dir / EVALUATION_NAME)
    write_predictions(predictions, out_dir)
    write_confusion(predictions, out_dir)
