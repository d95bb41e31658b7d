"""A run from its settings to its results: training, or the evaluation of a checkpoint."""

import math
from pathlib import Path

import torch
from torch import nn

from models import create_model
from training.checkpoints.averaging import averaged_model
from training.checkpoints.format import Checkpoint, load_model
from training.checkpoints.resuming import goes_on_by_itself, load_start, with_newest_checkpoint
from training.checkpoints.weights import start_from_weights
from training.epochs import summary, train_epochs
from training.errors import UserError
from training.images.datasets import DATASETS, Data
from training.images.shards import load_shards
from training.kernel_compilation import compile_kernels_of_run
from training.loading.bad_images import LIST_NAME, BadImages, list_bad_images, skipped_of_all
from training.loading.batches import BatchLoader, GlobalBatches, training_images, validation_images
from training.loading.workers import lost_workers_reported
from training.passes import evaluate
from training.processes.launcher import Process, broadcast_from_main
from training.processes.out_of_memory import names_batch_when_out_of_memory
from training.records.out_dir import refuse_other_run
from training.records.tensorboard import check_tensorboard
from training.seeding import derive_seed, draw_seed, seed_everything
from training.settings import Settings


@names_batch_when_out_of_memory
@lost_workers_reported()
def run(settings: Settings, process: Process) -> None:
    """Train, or evaluate, as ``settings`` say, as one of the processes that do it together.

    Raises:
        UserError: the data, the checkpoint, the output directory or the memory do not allow it,
            the loss is not finite, or a worker process is lost.
        SystemExit: a signal has interrupted the training, and its checkpoint is written.
    """
    if not settings.evaluate:
        check_tensorboard(settings)
    by_itself = goes_on_by_itself(settings, process)
    if by_itself:
        settings = with_newest_checkpoint(settings, process)
    elif not settings.evaluate:
        refuse_other_run(settings)
    checkpoint = load_start(settings, process)
    if by_itself and is_finished(settings, checkpoint):
        if process.is_main:
            print(f"finished already: {summary(checkpoint.history, settings)}", flush=True)
        return
    data = load_data(settings)
    classes = class_count(settings, data)
    seed = choose_seed(settings, checkpoint, process)
    torch.backends.cudnn.benchmark = process.device.type == "cuda"
    seed_everything(derive_seed(seed, "weights"))
    model = create_model(settings.arch, settings.pool, classes)
    if checkpoint is not None:
        load_model(model, checkpoint, settings)
    model.to(process.device, memory_format=settings.memory_format)
    if process.is_main:
        print(description(settings, data, process, seed), flush=True)
    if checkpoint is None and (settings.pretrained or settings.weights is not None):
        start_from_weights(model, settings, process)
    val_batches = make_val_batches(data, settings, process, seed)
    if settings.evaluate:
        model = averaged_model(model, checkpoint, settings)
        compile_kernels_of_run(model, None, val_batches, settings, process)
        if settings.compile:
            model.compile()
        scores = evaluate(
            model, val_batches, settings.forward, process, "evaluation", settings.print_freq
        )
        skipped = skipped_of_all([val_batches.bad_images], process)
        if process.is_main:
            list_bad_images(skipped, Path(settings.out_dir, LIST_NAME))
            print(
                f"top-1 error {scores.err1:.2f}%, top-5 error {scores.err5:.2f}%, "
                f"loss {scores.loss:.4f} on {scores.images} images"
                + (f", {len(skipped)} bad ones skipped" if skipped else "")
                + (", of the averaged weights" if checkpoint.ema is not None else "")
            )
    else:
        if settings.sync_bn and process.world_size > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        train_batches = make_train_batches(data, settings, process, seed)
        compile_kernels_of_run(model, train_batches, val_batches, settings, process)
        train_epochs(model, train_batches, val_batches, checkpoint, settings, process, seed)


def is_finished(settings: Settings, checkpoint: Checkpoint | None) -> bool:
    """Return whether a run that resumes by itself has had its last epoch."""
    epochs = len(settings.learning_rates)
    return not settings.evaluate and checkpoint is not None and checkpoint.epoch >= epochs


def load_data(settings: Settings) -> Data:
    """Return the images that the settings name, of an evaluation the validation images alone."""
    if settings.val_data is not None:
        return load_shards(None if settings.evaluate else settings.data, settings.val_data)
    load = DATASETS[settings.dataset].load
    return load(settings.data, settings.exclude, not settings.evaluate)


def class_count(settings: Settings, data: Data) -> int:
    """Return the number of the network's outputs: ``--num-classes``, or the data's classes."""
    if settings.num_classes is None:
        return len(data.classes)
    if settings.num_classes < len(data.classes):
        raise UserError(
            f"--num-classes {settings.num_classes}: the data has {len(data.classes)} classes; "
            "raise it or leave it out"
        )
    return settings.num_classes


def choose_seed(settings: Settings, checkpoint: Checkpoint | None, process: Process) -> int:
    """Return the seed of ``--seed``, else the checkpoint's, else a fresh one; the same for all."""
    seed = settings.seed
    if seed is None and checkpoint is not None:
        seed = checkpoint.seed
    if seed is None:
        seed = draw_seed()
    agreed = torch.tensor([seed], device=process.device)
    broadcast_from_main([agreed], process)
    return int(agreed.item())


def description(settings: Settings, data: Data, process: Process, seed: int) -> str:
    """Return what is about to run, in a line."""
    training = f"{len(data.train)} training and " if data.train is not None else ""
    processes = f"{process.world_size} processes on " if settings.is_distributed else ""
    return (
        f"{settings.arch} with {settings.pool} pooling; {settings.dataset}: {training}"
        f"{len(data.val)} validation images of {len(data.classes)} classes; recipe "
        f"{settings.config_name}; {processes}{process.device.type}; seed {seed}"
    )


def make_train_batches(data: Data, settings: Settings, process: Process, seed: int) -> BatchLoader:
    """Return the shuffled training batches.

    A last batch too small to give every process two images a part is left out: batch normalisation
    cannot take a single one.
    """
    sampler = GlobalBatches(
        len(data.train),
        settings.images_per_step_here * settings.machines,
        process,
        shuffle_seed=seed,
        smallest=settings.smallest_batch_here * settings.machines,
        limit=settings.limit_train_batches,
        shard_sizes=data.train.shard_sizes,
        workers=workers_each(settings),
    )
    if not len(sampler):
        raise UserError(
            f"--data {settings.data}: {len(data.train)} training images are too few for "
            f"{process.world_size} processes, which need {2 * settings.accum_steps} each"
        )
    bad_images = make_bad_images("training", len(data.train), settings)
    images = training_images(data.train, settings.recipe, seed, replace_bad=bad_images is not None)
    return BatchLoader(
        *(images, sampler, workers_each(settings), process, seed),
        *(bad_images, settings.worker_timeout),
    )


def make_val_batches(data: Data, settings: Settings, process: Process, seed: int) -> BatchLoader:
    """Return the validation batches, in the data's order."""
    sampler = GlobalBatches(
        len(data.val),
        settings.images_per_step_here * settings.machines,
        process,
        limit=settings.limit_val_batches,
        shard_sizes=data.val.shard_sizes,
        workers=workers_each(settings),
    )
    bad_images = make_bad_images("validation", sum(sampler.global_sizes), settings)
    images = validation_images(data.val, settings.recipe, seed)
    return BatchLoader(
        *(images, sampler, workers_each(settings), process, seed),
        *(bad_images, settings.worker_timeout),
    )


def make_bad_images(kind: str, images: int, settings: Settings) -> BadImages | None:
    """Return the count of the bad ones of ``images`` images, None if they are not skipped."""
    if settings.on_bad_image == "error":
        return None
    return BadImages(kind, images, Path(settings.out_dir, LIST_NAME))


def workers_each(settings: Settings) -> int:
    """Return each process's share of ``--workers``."""
    return math.ceil(settings.workers / settings.processes_here)
