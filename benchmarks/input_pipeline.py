"""Times what one core does for the published training augmentation, with this project's input
pipeline and with a plain one of torchvision's ImageFolder and PIL:
``python benchmarks/input_pipeline.py --help``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
import torchvision
from PIL import Image, features
from timm.data import create_transform
from timm.data.loader import fast_collate
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.environment import environment_of
from benchmarks.options import add_run_options
from benchmarks.results import (
    InputPipelineResults,
    InputPipelineSettings,
    InputPipelineTime,
    Spread,
    write_results,
)
from training.argument_types import positive_int
from training.images.datasets import load_image_folders
from training.images.lighting import EIGENVALUES, EIGENVECTORS
from training.loading.batches import collate
from training.loading.samples import Sample, SampleKey, TransformedImages, training_images
from training.recipes import IMAGENET_MEAN, IMAGENET_STD, RECIPES

PLAIN = "ImageFolder and PIL"
TIMM = "timm, worker"
WORKER = "this project, worker"
FAST_WORKER = "this project, worker, --decode fast"
ON_CPU = "this project, all on the CPU"

MIN_REPEATS = 3
"""So many are made even where the time is up."""

SIZES = ((500, 375), (500, 333), (375, 500), (500, 500))
"""Widths and heights, in pixels: the most frequent ones of ImageNet."""

QUALITY = 92
"""With the images of :func:`natural_pixels`, 110 to 190 kB a file; ImageNet's have 110 kB."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark of the command line ``argv`` and writes its results."""
    options = make_parser().parse_args(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_jpegs(Path(folder), options.images, options.size)
            results = run(options, folder)
    finally:
        torch.set_num_threads(threads)
    for one in results.times:
        print(
            f"{one.pipeline}: {one.images_per_second:.4g} images/s per core, "
            f"{one.speedup.median:.2f} x (quartiles {one.speedup.q1:.2f} to {one.speedup.q3:.2f})"
        )
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".", allow_abbrev=False)
    parser.add_argument(
        "--images",
        type=positive_int,
        default=64,
        metavar="N",
        help="JPEG files to write, and images of a batch (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=positive_int,
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="of every file, in pixels (default: ImageNet's most frequent sizes)",
    )
    add_run_options(parser, out="input_pipeline.json", repeats=50, seconds=60.0)
    return parser


def run(options: argparse.Namespace, folder: str) -> InputPipelineResults:
    """Measures every pipeline on the files in ``folder``, in turn; after each round, writes what
    there is to ``options.out``."""
    started = time.monotonic()
    pipelines = make_pipelines(folder)
    for pipeline in pipelines.values():
        pipeline(0)
    environment = environment_of(torch.device("cpu"), "input_pipeline.py", options)
    settings = settings_of(options, folder)
    rounds = []
    for one in time_rounds(pipelines, options.repeats, started + options.seconds):
        rounds.append(one)
        times = [pipeline_time(name, rounds, options.images) for name in pipelines]
        results = InputPipelineResults(environment=environment, settings=settings, times=times)
        write_results(results, options.out)
    return results


def settings_of(options: argparse.Namespace, folder: str) -> InputPipelineSettings:
    files = list(Path(folder).rglob("*.jpeg"))
    return InputPipelineSettings(
        images=options.images,
        size=options.size,
        bytes_per_image=sum(file.stat().st_size for file in files) / len(files),
        repeats=options.repeats,
        seconds=options.seconds,
        torchvision=torchvision.__version__,
        pillow=Image.__version__,
        libjpeg_turbo=features.version("libjpeg_turbo"),
    )


def pipeline_time(name: str, rounds: Sequence[dict[str, float]], images: int) -> InputPipelineTime:
    """That of one pipeline, over all rounds."""
    spread = Spread.of([seconds[name] for seconds in rounds])
    return InputPipelineTime(
        pipeline=name,
        seconds=spread,
        images_per_second=images / spread.median,
        speedup=Spread.of([seconds[PLAIN] / seconds[name] for seconds in rounds]),
    )


def make_pipelines(folder: str) -> dict[str, Callable[[int], object]]:
    """The pipelines by name: (number of the epoch) -> all the images of ``folder`` as a batch."""
    train = str(Path(folder, "train"))
    plain = ImageFolder(train, published_transform())
    of_timm = ImageFolder(train, timm_transform())
    files = load_image_folders(folder, None, True).train
    recipe = RECIPES["imagenet"]
    fast = training_images(files, replace(recipe, decode="fast"), 0, on_cpu=False)
    for_gpu, for_cpu = (
        training_images(files, recipe, 0, on_cpu=on_cpu) for on_cpu in (False, True)
    )
    return {
        PLAIN: lambda epoch: default_collate([plain[index] for index in range(len(plain))]),
        TIMM: lambda epoch: fast_collate([of_timm[index] for index in range(len(of_timm))]),
        WORKER: lambda epoch: worker_batch(for_gpu, epoch),
        FAST_WORKER: lambda epoch: worker_batch(fast, epoch),
        ON_CPU: lambda epoch: device_batch(for_cpu, worker_batch(for_cpu, epoch)),
    }


def worker_batch(images: TransformedImages, epoch: int) -> Sample:
    return collate([images[SampleKey(epoch, index)] for index in range(len(images))]).samples


def device_batch(images: TransformedImages, batch: Sample) -> Tensor:
    return images.batch_transform(batch.image, batch.draws)


def published_transform() -> transforms.Compose:
    """The published augmentation, image by image: https://github.com/tk1980/GFGP."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
            transforms.ToTensor(),
            PublishedLighting(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def timm_transform() -> transforms.Compose:
    """What timm's worker processes do for the same augmentation, but for the lighting."""
    return create_transform(
        224,
        is_training=True,
        use_prefetcher=True,
        color_jitter=0.4,
        interpolation="bilinear",
    )


class PublishedLighting(nn.Module):
    """Lighting noise of standard deviation 0.1 on one image [3, H, W]."""

    def forward(self, image: Tensor) -> Tensor:
        weights = torch.randn(3) * 0.1
        colour = torch.tensor(EIGENVECTORS) @ (weights * torch.tensor(EIGENVALUES))
        return image + colour.view(3, 1, 1)


def time_rounds(
    pipelines: dict[str, Callable[[int], object]], repeats: int, deadline: float
) -> Iterator[dict[str, float]]:
    """CPU seconds of every pipeline, once a round and each round in another order."""
    shuffle, rounds = random.Random(0), 0
    while rounds < min(MIN_REPEATS, repeats) or (rounds < repeats and time.monotonic() < deadline):
        seconds = {}
        for name in shuffle.sample(list(pipelines), len(pipelines)):
            # The process's own time: what others do on a shared machine is not in it.
            start = time.process_time()
            pipelines[name](rounds)
            seconds[name] = time.process_time() - start
        yield seconds
        rounds += 1


def write_jpegs(folder: Path, count: int, size: Sequence[int] | None) -> None:
    """Writes ``count`` images to ``folder/train/class`` and one to ``folder/val/class``."""
    generator = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 1)):
        (folder / split / "class").mkdir(parents=True)
        for index in range(number):
            width, height = size or SIZES[index % len(SIZES)]
            image = Image.fromarray(natural_pixels(width, height, generator))
            image.save(folder / split / "class" / f"{index}.jpeg", quality=QUALITY)


def natural_pixels(width: int, height: int, generator: np.random.Generator) -> np.ndarray:
    """Noise with a natural image's spectrum, amplitude ~ 1 / frequency, and correlated colours.

    D. J. Field, "Relations between the statistics of natural images and the response properties
    of cortical cells", J. Opt. Soc. Am. A, 1987.
    """
    grey, *colours = noise_fields(width, height, generator)
    pixels = 118 + 60 * np.stack([(grey + 0.3 * colour) / 1.3 for colour in colours], axis=-1)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def noise_fields(width: int, height: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf  # no constant part
    for _ in range(4):
        noise = np.fft.rfft2(generator.normal(size=(height, width)))
        field = np.fft.irfft2(noise / frequency, (height, width))
        yield field / field.std()


if __name__ == "__main__":
    sys.exit(main())
