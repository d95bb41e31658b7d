"""The images of a run, and the batches of them that this process takes."""

from pathlib import Path
from typing import Any

from training.errors import UserError
from training.images.datasets import DATASETS, Data, LabelledImages
from training.images.huggingface import PREFIX, load_huggingface
from training.images.mixing import Mixing
from training.images.shards import load_shards
from training.loading.bad_images import BadImages
from training.loading.batches import BatchLoader
from training.loading.global_batches import GlobalBatches
from training.loading.samples import TransformedImages, training_images, validation_images
from training.processes.ranks import Process, errors_shared
from training.records.bad_images import BAD_IMAGES_NAME, list_bad_images
from training.run import Run
from training.same_data import check_same_data
from training.settings import Settings


def load_data(settings: Settings, process: Process) -> Data:
    """Return the images that the settings name, of an evaluation the validation images alone.

    Every process must call it.

    Raises:
        UserError: a process cannot find them, or has found others; in every process.
    """
    with errors_shared(process):
        data = find_data(settings, process)
    check_same_data(data, f"--data {settings.data}", process)
    return data


def find_data(settings: Settings, process: Process) -> Data:
    """Return what ``load_data`` does, as this machine has it."""
    if settings.data.startswith(PREFIX):
        return load_huggingface(settings.data, not settings.evaluate)
    if settings.val_data is not None:
        train = None if settings.evaluate else settings.data
        return load_shards(train, settings.val_data, process)
    load = DATASETS[settings.dataset].load
    return load(settings.data, settings.exclude, not settings.evaluate)


def class_count(num_classes: int | None, data: Data) -> int:
    """Return the number of the network's outputs: ``--num-classes``, or the data's classes."""
    if num_classes is None:
        return len(data.classes)
    if num_classes < len(data.classes):
        raise UserError(
            f"--num-classes {num_classes}: the data has {len(data.classes)} classes; "
            "raise it or leave it out"
        )
    return num_classes


def make_train_batches(data: Data, run: Run) -> BatchLoader:
    """Return shuffled batches of the training images of ``data``.

    A last batch too small to give every process two images a part is left out: batch normalisation
    cannot take a single one.
    """
    settings, images = run.settings, data.train
    recipe = settings.recipe
    sampler = make_sampler(
        images,
        run,
        repeats=recipe.repeated_augmentation,
        limit=settings.limit_train_batches,
        shuffle_seed=run.seed,
        smallest=settings.smallest_batch_here * settings.machines,
    )
    if not len(sampler):
        raise UserError(
            f"--data {settings.data}: {len(images)} training images are too few for "
            f"{run.process.world_size} processes, which need {2 * settings.accum_steps} each"
        )
    bad_images = make_bad_images("training", len(images), run)
    augmented = training_images(
        images,
        recipe,
        seed=run.seed,
        replace_bad=bad_images is not None,
        on_cpu=run.process.device.type == "cpu",
    )
    classes = class_count(settings.num_classes, data)
    mixes = recipe.mixup or recipe.cutmix
    mixing = Mixing(recipe.mixup, recipe.cutmix, classes) if mixes else None
    return make_loader(augmented, sampler, run, bad_images=bad_images, mixing=mixing)


def make_val_batches(images: LabelledImages, run: Run) -> BatchLoader:
    """Return batches of the validation images, in the data's order."""
    sampler = make_sampler(images, run, limit=run.settings.limit_val_batches)
    bad_images = make_bad_images("validation", sum(sampler.global_sizes), run)
    prepared = validation_images(images, run.settings.recipe, run.seed)
    return make_loader(prepared, sampler, run, bad_images=bad_images)


def make_sampler(images: LabelledImages, run: Run, **order: Any) -> GlobalBatches:
    """Return which of ``images`` this process takes at each step; ``order`` as it is there."""
    return GlobalBatches(
        num_samples=len(images),
        global_batch_size=run.settings.images_per_step,
        process=run.process,
        shard_sizes=images.shard_sizes,
        workers=run.settings.workers_each,
        **order,
    )


def make_bad_images(kind: str, images: int, run: Run) -> BadImages | None:
    """Return the count of the bad ones of ``images`` images, None if they are not skipped."""
    if run.settings.on_bad_image == "error":
        return None
    path = Path(run.settings.out_dir, BAD_IMAGES_NAME)
    return BadImages(kind, images, path=path, write=list_bad_images)


def make_loader(
    images: TransformedImages,
    sampler: GlobalBatches,
    run: Run,
    bad_images: BadImages | None,
    mixing: Mixing | None = None,
) -> BatchLoader:
    """Return the loader of the batches of ``sampler``."""
    return BatchLoader(
        dataset=images,
        sampler=sampler,
        workers=run.settings.workers_each,
        process=run.process,
        seed=run.seed,
        mixing=mixing,
        bad_images=bad_images,
        worker_timeout=run.settings.worker_timeout,
    )
