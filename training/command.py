"""The command from its settings to its results: training, or the evaluation of a checkpoint."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from models import create_model
from training.checkpoints.differences import differences
from training.checkpoints.format import Checkpoint, load_model
from training.checkpoints.lock import one_run_at_a_time
from training.checkpoints.resuming import (
    check_image_count,
    check_samples,
    goes_on_by_itself,
    lineage_of,
    load_start,
    refuse_other_run,
    with_newest_checkpoint,
)
from training.checkpoints.weights import (
    load_weights,
    start_from_weights,
    weights_to_evaluate,
    with_wordnet_names,
)
from training.checks import check_settings
from training.class_names import line_of_classes, with_classes_of
from training.data import class_count, load_data, make_train_batches, make_val_batches
from training.epochs import come_to, train_epochs
from training.evaluation import evaluate_weights, line_of_preparation, output_count
from training.image_checks import check_image_size
from training.images.datasets import Data
from training.kernel_compilation import compile_kernels_of_run
from training.processes.launcher import launch
from training.processes.out_of_memory import out_of_memory_in_one_line
from training.processes.ranks import Process, broadcast_from_main
from training.recipes import RECIPES
from training.records.figures import draw_if_outdated
from training.records.lines import description
from training.records.trackers import check_trackers
from training.run import Run
from training.seeding import derive_seed, draw_seed, seed_everything
from training.settings import Settings


def start(settings: Settings) -> None:
    """Check ``settings`` and do what they say, in as many processes as they say.

    Raises:
        UserError: see ``check_settings`` and ``train_or_evaluate``.
        SystemExit: see there and ``training.processes.launcher.launch``.
    """
    check_settings(settings)
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
@one_run_at_a_time
def train_or_evaluate(settings: Settings, process: Process) -> None:
    """Train, or evaluate, as ``settings`` say, as one of the processes that do it together.

    Raises:
        UserError: the data, the checkpoint, the output directory or the memory do not allow it,
            the loss is not finite, or a worker process is lost.
        SystemExit: a signal has interrupted the training, and its checkpoint is written.
    """
    if settings.evaluate:
        evaluate(settings, process)
    else:
        train(settings, process)


def evaluate(settings: Settings, process: Process) -> None:
    """Evaluate weights on the validation images; see ``train_or_evaluate``."""
    if goes_on_by_itself(settings, process):
        settings = with_newest_checkpoint(settings, process)
    weights = weights_to_evaluate(settings, process)
    settings = settings.with_network(weights.arch, weights.pool)
    own = load_data(settings, process)
    weights = with_wordnet_names(weights, own)
    data = with_classes_of(own, weights.origin, weights.classes, subset=True)
    run = Run(settings, process, choose_seed(settings.seed, None, process))
    model = make_model(output_count(weights, data, settings.num_classes), run)
    load_weights(model, weights, run)
    if process.is_main:
        of_classes = line_of_classes(weights.origin, weights.classes, own)
        print(description(data, run), flush=True)
        for line in (of_classes, line_of_preparation(weights, settings)):
            if line is not None:
                print(line, flush=True)
    evaluate_weights(model, weights, data=data, run=run)


def train(settings: Settings, process: Process) -> None:
    """Train a network; see ``train_or_evaluate``."""
    check_trackers(settings)
    told = settings.resume
    by_itself = goes_on_by_itself(settings, process)
    if by_itself:
        settings = with_newest_checkpoint(settings, process)
    else:
        refuse_other_run(settings)
    checkpoint = load_start(settings, process)
    if by_itself and checkpoint is not None and is_finished(checkpoint, settings):
        if process.is_main:
            draw_if_outdated(checkpoint.history, settings.out_dir, settings.pdf_filename)
            print(f"finished already: {come_to(checkpoint.history, settings)}", flush=True)
        return
    if checkpoint is None:
        settings = settings.with_network()
    else:
        settings = settings.with_network(checkpoint.arch, checkpoint.pool)
    data = load_data(settings, process)
    if checkpoint is not None:
        check_image_count(checkpoint, len(data.train))
        data = match_classes(data, checkpoint.classes, settings, process)
    run = Run(
        settings=settings,
        process=process,
        seed=choose_seed(settings.seed, checkpoint, process),
        classes=data.classes if data.classes_have_names else None,
        lineage=lineage_of(checkpoint, was_told=settings.resume == told),
    )
    model = make_model(class_count(settings.num_classes, data), run)
    if checkpoint is not None:
        load_model(model, checkpoint, settings.arch, settings.pool, data_classes=len(data.classes))
    if process.is_main:
        print(description(data, run), flush=True)
    if checkpoint is None and (settings.pretrained or settings.weights is not None):
        start_from_weights(model, data, run)
    train_on(data, model, checkpoint, run=run)


def match_classes(
    data: Data, of_checkpoint: Sequence[str] | None, settings: Settings, process: Process
) -> Data:
    """Return ``data`` with the classes of ``--resume`` in its order; say so where it is another.

    Raises:
        UserError: the data has other classes, or to train on not all of them.
    """
    origin = f"--resume {settings.resume}"
    line = line_of_classes(origin, of_checkpoint, data)
    # Outputs that no image is of: to train on these --num-classes has to ask for them.
    subset = settings.num_classes is not None
    data = with_classes_of(data, origin, of_checkpoint, subset=subset)
    if line is not None and process.is_main:
        print(line, flush=True)
    return data


def is_finished(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Return whether a run that resumes by itself has had its last epoch."""
    had_all = checkpoint.epoch >= len(settings.learning_rates)
    return had_all and len(checkpoint.history) > 0


def choose_seed(seed: int | None, checkpoint: Checkpoint | None, process: Process) -> int:
    """Return the seed of ``--seed``, else the checkpoint's, else a fresh one; the same for all."""
    if seed is None and checkpoint is not None:
        seed = checkpoint.seed
    if seed is None:
        seed = draw_seed()
    agreed = torch.tensor([seed], device=process.device)
    broadcast_from_main([agreed], process)
    return int(agreed.item())


def make_model(classes: int, run: Run) -> nn.Module:
    """Return the network of ``run`` on its device, with fresh weights."""
    settings, device = run.settings, run.process.device
    torch.backends.cudnn.benchmark = device.type == "cuda"
    make_network = partial(create_model, settings.arch, settings.pool, classes)
    size = settings.recipe.image_size
    if size != RECIPES[settings.config_name].image_size:
        check_image_size(make_network, size, f"{settings.arch} with {settings.pool}")
    seed_everything(derive_seed(run.seed, "weights"))
    model = make_network()
    return model.to(device, memory_format=settings.memory_format)


def train_on(data: Data, model: nn.Module, checkpoint: Checkpoint | None, run: Run) -> None:
    """Train ``model``, from the start or from where ``checkpoint`` is; see ``train_epochs``."""
    val_batches = make_val_batches(data.val, run)
    if run.settings.sync_bn and run.process.world_size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    train_batches = make_train_batches(data, run)
    if checkpoint is not None:
        check_samples(checkpoint, train_batches.sampler)
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
