"""Samples: each image decoded and transformed, with random numbers of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from training.images.batch_transform import BatchTransform
from training.images.datasets import BrokenSource, LabelledImages
from training.images.decoding import Decode, decode_rgb
from training.images.preparation import Transform
from training.loading.bad_images import BadImage
from training.recipes import Recipe
from training.seeding import derive_seed


class SampleKey(NamedTuple):
    """Which sample, in which epoch and taken for which time in it, from 0.

    Together they decide its random augmentation.
    """

    epoch: int
    index: int
    repeat: int = 0


class Sample(NamedTuple):
    """An image [3, H, W], its random numbers for the batch's transform, and its class index."""

    image: Tensor
    draws: list[Tensor]
    target: int


@dataclass(frozen=True)
class TransformedImages(Dataset):
    """Decoded and transformed images, each with random numbers of its own.

    A sample's random numbers follow from ``seed`` and its key alone, so they do not depend on the
    number of worker processes or of ranks, nor on where a run was resumed. ``transform`` is the
    worker's part of the work; of ``batch_transform``, the device's part, only the random numbers
    are drawn here. With ``replace_bad``, another image takes the place of one that cannot be read.
    """

    images: LabelledImages
    transform: Transform
    batch_transform: BatchTransform
    seed: int
    decode: Decode = decode_rgb
    replace_bad: bool = False

    def __getitem__(self, key: SampleKey) -> Sample | BadImage:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(augmentation_seed(self.seed, key))
            try:
                image = self.decode(self.images.image(key.index))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                can_be_skipped = not isinstance(error, BrokenSource)
                return BadImage.of(self.images.name(key.index), error, can_be_skipped)
            transformed = self.transform(image)
            return Sample(transformed, self.batch_transform.draw(), self.images.target(key.index))

    def __getitems__(self, keys: Sequence[SampleKey]) -> list[Sample | BadImage]:
        """Return the samples of ``keys``, and the bad images that were met."""
        return [each for key in keys for each in self._tries(key)]

    def __len__(self) -> int:
        return len(self.images)

    def _tries(self, key: SampleKey) -> Iterator[Sample | BadImage]:
        """Yield the sample of ``key``; while it is bad, with ``replace_bad``, one to replace it.

        Those are 1, 2, 4, 8... places further on, so that few tries get past many bad images in
        a row, such as files that a full disk has left empty.
        """
        places = 1
        sample = self[key]
        while self.replace_bad and isinstance(sample, BadImage) and sample.can_be_skipped:
            if places >= len(self):
                sample = replace(sample, can_be_skipped=False)
                break
            yield sample
            sample = self[key._replace(index=(key.index + places) % len(self))]
            places *= 2
        yield sample


def augmentation_seed(seed: int, key: SampleKey) -> int:
    """Return the seed of the random numbers of one sample."""
    numbers = key if key.repeat else key[:2]  # as it was when no sample was taken twice
    return derive_seed(seed, "augmentation", *numbers)


def training_images(
    images: LabelledImages,
    recipe: Recipe,
    seed: int,
    replace_bad: bool = False,
    on_cpu: bool = True,
) -> TransformedImages:
    """Return ``images`` as ``recipe`` augments them for a training there; see ``train_steps``.

    For ``replace_bad``, see ``TransformedImages``.
    """
    transform, batch_transform = recipe.train_steps(on_cpu)
    return TransformedImages(
        images=images,
        transform=transform,
        batch_transform=batch_transform,
        seed=seed,
        decode=recipe.train_decode,
        replace_bad=replace_bad,
    )


def validation_images(images: LabelledImages, recipe: Recipe, seed: int) -> TransformedImages:
    """Return ``images`` as ``recipe`` prepares them for an evaluation."""
    transform, batch_transform = recipe.val_steps()
    return TransformedImages(
        images=images, transform=transform, batch_transform=batch_transform, seed=seed
    )
