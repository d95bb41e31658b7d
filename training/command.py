"""The command from its settings to its results: training, or the evaluation of a checkpoint."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from models import create_model
from training.checkpoints.averaging import averaged_model
from training.checkpoints.differences import differences
from training.checkpoints.format import Checkpoint, load_model
from training.checkpoints.lock import one_run_at_a_time
from training.checkpoints.resuming import (
    goes_on_by_itself,
    lineage_of,
    load_start,
    refuse_other_run,
    with_newest_checkpoint,
)
from training.checkpoints.weights import start_from_weights
from training.class_names import matching, with_classes_of
from training.data import class_count, load_data, make_train_batches, make_val_batches
from training.epochs import train_epochs
from training.images.datasets import Data, LabelledImages
from training.kernel_compilation import compile_kernels_of_run
from training.loading.bad_images import skipped_of_all
from training.loading.workers import lost_workers_reported
from training.passes import evaluate
from training.processes.launcher import launch
from training.processes.out_of_memory import out_of_memory_in_one_line
from training.processes.ranks import Process, broadcast_from_main
from training.records.bad_images import BAD_IMAGES_NAME, list_bad_images
from training.records.evaluation import EVALUATION_NAME, Evaluation, write_evaluation
from training.records.lines import description, summary
from training.records.out_dir import make_out_dir
from training.records.tensorboard import check_tensorboard
from training.run import Run
from training.seeding import derive_seed, draw_seed, seed_everything
from training.settings import Settings


def start(settings: Settings) -> None:
    """Check ``settings`` and do what they say, in as many processes as they say.

    Raises:
        UserError: see ``Settings.check`` and ``train_or_evaluate``.
        SystemExit: see there and ``training.processes.launcher.launch``.
    """
    settings.check()
    if settings.torchrun is None or settings.torchrun.rank == 0:
        for note in settings.notes:
            print(note, flush=True)
    launch(partial(train_or_evaluate, settings), settings.placement)


def out_of_memory_line(settings: Settings, process: Process) -> str:
    """Return what was tried and what takes less memory, in a line."""
    images = math.ceil(settings.images_per_step_here / settings.processes_here)
    tried = f"--batch-size {settings.images_per_step_here}"
    ways_out = ["lower --batch-size"]
    if not settings.evaluate:
        tried += f", --accum-steps {settings.accum_steps}"
        # Validation, whose pass keeps no activations, takes a process's images at once.
        ways_out.append("raise --accum-steps (for training)")
    if settings.amp == "off":
        ways_out.append("pass --amp bf16")
    return (
        f"out of memory on {process.device} with batches of {images} images in each process "
        f"({tried}, --amp {settings.amp}): {', or '.join(ways_out)}"
    )


@out_of_memory_in_one_line(out_of_memory_line)
@lost_workers_reported()
@one_run_at_a_time
def train_or_evaluate(settings: Settings, process: Process) -> None:
    """Train, or evaluate, as ``settings`` say, as one of the processes that do it together.

    Raises:
        UserError: the data, the checkpoint, the output directory or the memory do not allow it,
            the loss is not finite, or a worker process is lost.
        SystemExit: a signal has interrupted the training, and its checkpoint is written.
    """
    if settings.tensorboard and not settings.evaluate:
        check_tensorboard()
    told = settings.resume
    by_itself = goes_on_by_itself(settings, process)
    if by_itself:
        settings = with_newest_checkpoint(settings, process)
    elif not settings.evaluate:
        refuse_other_run(settings)
    checkpoint = load_start(settings, process)
    if by_itself and checkpoint is not None and is_finished(checkpoint, settings):
        if process.is_main:
            line = summary(checkpoint.history, settings.out_dir)
            print(f"finished already: {line}", flush=True)
        return
    data = load_data(settings)
    if checkpoint is not None and checkpoint.classes is not None:
        data = match_classes(data, checkpoint.classes, settings, process)
    classes = class_count(settings.num_classes, data)
    run = Run(
        settings=settings,
        process=process,
        seed=choose_seed(settings.seed, checkpoint, process),
        classes=data.classes if data.classes_have_names else None,
        lineage=lineage_of(checkpoint, was_told=settings.resume == told),
    )
    model = make_model(classes, checkpoint, run)
    if process.is_main:
        print(description(data, run), flush=True)
    if checkpoint is None and (settings.pretrained or settings.weights is not None):
        start_from_weights(model, run)
    if settings.evaluate:
        evaluate_checkpoint(model, checkpoint, images=data.val, run=run)
    else:
        train(model, checkpoint, data=data, run=run)


def match_classes(
    data: Data, of_checkpoint: Sequence[str], settings: Settings, process: Process
) -> Data:
    """Return ``data`` with the classes of ``--resume`` in its order; say so where it is another.

    Raises:
        UserError: the data has other classes, or to train on not all of them.
    """
    own, origin = data.classes, f"--resume {settings.resume}"
    # Outputs that no image is of: to train on these --num-classes has to ask for them.
    subset = settings.evaluate or settings.num_classes is not None
    data = with_classes_of(data, origin, of_checkpoint, subset=subset)
    line = matching(own, of_checkpoint) if data.classes_have_names else None
    if line is not None and process.is_main:
        print(line, flush=True)
    return data


def is_finished(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Return whether a run that resumes by itself has had its last epoch."""
    had_all = checkpoint.epoch >= len(settings.learning_rates)
    return not settings.evaluate and had_all and len(checkpoint.history) > 0


def choose_seed(seed: int | None, checkpoint: Checkpoint | None, process: Process) -> int:
    """Return the seed of ``--seed``, else the checkpoint's, else a fresh one; the same for all."""
    if seed is None and checkpoint is not None:
        seed = checkpoint.seed
    if seed is None:
        seed = draw_seed()
    agreed = torch.tensor([seed], device=process.device)
    broadcast_from_main([agreed], process)
    return int(agreed.item())


def make_model(classes: int, checkpoint: Checkpoint | None, run: Run) -> nn.Module:
    """Return the network of ``run`` on its device, as fresh or as ``checkpoint`` has it."""
    settings, device = run.settings, run.process.device
    torch.backends.cudnn.benchmark = device.type == "cuda"
    seed_everything(derive_seed(run.seed, "weights"))
    model = create_model(settings.arch, settings.pool, classes)
    if checkpoint is not None:
        load_model(model, checkpoint, arch=settings.arch, pool=settings.pool)
    return model.to(device, memory_format=settings.memory_format)


def evaluate_checkpoint(
    model: nn.Module, checkpoint: Checkpoint, images: LabelledImages, run: Run
) -> None:
    """Print the scores of ``checkpoint`` on validation ``images``; write ``evaluation.json``.

    It goes to ``--out-dir``, in place of an earlier one.

    Raises:
        UserError: the folder cannot be written, of which it is sure before it begins; an image
            is unreadable, or the loss is not finite.
    """
    settings, process = run.settings, run.process
    val_batches = make_val_batches(images, run)
    model = averaged_model(model, checkpoint)
    if process.is_main:
        make_out_dir(settings.out_dir)
    compile_kernels_of_run(model, run, train_batches=None, val_batches=val_batches)
    if settings.compile:
        model.compile()
    scores = evaluate(model, val_batches, run, title="evaluation")
    skipped = skipped_of_all([val_batches.bad_images], process)
    if not process.is_main:
        return
    evaluation = Evaluation(
        top1_error=scores.err1,
        top5_error=scores.err5,
        loss=scores.loss,
        images=scores.images,
        skipped_images=len(skipped),
        averaged=checkpoint.ema is not None,
        checkpoint=str(Path(checkpoint.path).resolve()),
        dataset=settings.dataset,
        data=settings.data if settings.val_data is None else settings.val_data,
    )
    list_bad_images(skipped, Path(settings.out_dir, BAD_IMAGES_NAME))
    print(evaluation, flush=True)
    write_evaluation(evaluation, Path(settings.out_dir, EVALUATION_NAME))


def train(model: nn.Module, checkpoint: Checkpoint | None, data: Data, run: Run) -> None:
    """Train ``model``, from the start or from where ``checkpoint`` is; see ``train_epochs``."""
    val_batches = make_val_batches(data.val, run)
    if run.settings.sync_bn and run.process.world_size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    train_batches = make_train_batches(data.train, run)
    compile_kernels_of_run(model, run, train_batches=train_batches, val_batches=val_batches)
    if checkpoint is not None and run.process.is_main:
        for line in differences(checkpoint, run.settings):
            print(f"other than so far: {line}", flush=True)
    train_epochs(
        model=model,
        train_batches=train_batches,
        val_batches=val_batches,
        checkpoint=checkpoint,
        run=run,
    )
