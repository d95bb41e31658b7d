"""The command ``training.predict`` from its options to the text."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from models.readable import readable
from training.atomic_write import atomic_write
from training.checkpoints.format import load_checkpoint
from training.checkpoints.network import network_of
from training.checkpoints.recipe import recipe_of
from training.errors import UserError
from training.loading.batches import BatchLoader
from training.loading.global_batches import GlobalBatches
from training.loading.samples import validation_images
from training.loading.workers import default_workers
from training.predict.formats import FORMATS, Prediction
from training.predict.images import NamedBadImages, UnlabelledImages, image_paths
from training.processes.ranks import Process

SEED = 0  # nothing is random in an evaluation


def predict(options: argparse.Namespace) -> None:
    """Do what the command line ``options`` ask for.

    Raises:
        UserError: the checkpoint or an image cannot be read, or the file cannot be written.
    """
    device = device_of(options.cpu, options.gpu)
    checkpoint = load_checkpoint(options.checkpoint, option="CHECKPOINT")
    network = network_of(checkpoint, options.pool).to(device)
    recipe = recipe_of(checkpoint)
    images = UnlabelledImages(image_paths(options.images))
    bad_images = NamedBadImages()
    process = Process(rank=0, world_size=1, device=device)
    workers = options.workers
    if workers is None:
        workers = min(default_workers(), len(images) // options.batch_size)
    batches = BatchLoader(
        dataset=validation_images(images, recipe, SEED),
        sampler=GlobalBatches(len(images), options.batch_size, process, workers=workers),
        workers=workers,
        process=process,
        seed=SEED,
        bad_images=bad_images,
    )
    predictions = predictions_of(network, batches, images, checkpoint.classes or (), options.top)
    text = FORMATS[options.format](predictions)
    if options.out is None:
        # A path may hold bytes that are no UTF-8, which only a file can be given.
        print(readable(text), end="", flush=True)
    else:
        with atomic_write(Path(options.out)) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    if bad_images.count:
        raise UserError(
            f"{bad_images.count} of {len(images)} images cannot be read; the others' predictions "
            "are complete"
        )


def device_of(cpu: bool, gpu: int | None) -> torch.device:
    """Return the device of ``--cpu`` and ``--gpu``.

    Raises:
        UserError: they contradict each other, or there is no such GPU.
    """
    if cpu and gpu is not None:
        raise UserError(f"--gpu {gpu} and --cpu: leave one of them out")
    if cpu or (gpu is None and not torch.cuda.is_available()):
        return torch.device("cpu")
    if (gpu or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--gpu {gpu}: PyTorch sees {torch.cuda.device_count()} GPUs here, counted from 0; "
            "leave the option out or pass --cpu"
        )
    return torch.device("cuda", gpu or 0)


@torch.inference_mode()
def predictions_of(
    network: nn.Module,
    batches: BatchLoader,
    images: UnlabelledImages,
    classes: Sequence[str],
    top: int,
) -> list[Prediction]:
    """Return the ``top`` most probable classes of each image that can be read.

    Args:
        network: in evaluation mode.
        batches: of ``images``.
        images: which the targets of the batches count.
        classes: names of the first outputs; the others are called by their numbers.
        top: how many classes, all where there are no more.
    """
    results = []
    for batch in batches:
        probabilities = network(batch.images).float().softmax(dim=1)
        largest = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
        results.append((batch.targets, *largest))
    names = dict(enumerate(classes))
    return [
        Prediction(
            image=images.name(index),
            classes=tuple(names.get(output, str(output)) for output in outputs),
            probabilities=tuple(shares),
        )
        for indices, values, numbers in results
        for index, shares, outputs in zip(
            indices.tolist(), values.tolist(), numbers.tolist(), strict=True
        )
    ]
