"""Batches: which samples a process takes at each step, and their images on its device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from training.errors import UserError
from training.images.batch_transform import BatchTransform
from training.images.datasets import BrokenSource, LabelledImages
from training.images.decoding import Decode, decode_rgb
from training.images.mixing import Mixing
from training.images.preparation import Transform
from training.images.shard_order import shard_order, with_repeats
from training.loading.bad_images import BadImage, BadImages
from training.loading.workers import worker_start
from training.processes.ranks import Process
from training.processes.stop_signals import hold_stop_signals
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


class Share(NamedTuple):
    """What is decoded of a batch: its samples stacked, None if there are none; bad images."""

    samples: Sample | None
    bad_images: list[BadImage]


@dataclass(frozen=True)
class Batch:
    """This process's share of a global batch.

    Attributes:
        images: [N, 3, H, W] floats on the process's device.
        targets: [N] class indices there.
        global_size: number of images of the batch over all processes.
        soft_targets: [N, classes] shares of the classes in images that were mixed, or None.
    """

    images: Tensor
    targets: Tensor
    global_size: int
    soft_targets: Tensor | None = None

    def split(self, count: int) -> "list[Batch]":
        """Return its images in ``count`` parts of nearly equal size, each of the global batch."""
        images, targets = self.images.tensor_split(count), self.targets.tensor_split(count)
        soft_targets: Sequence[Tensor | None] = [None] * count
        if self.soft_targets is not None:
            soft_targets = self.soft_targets.tensor_split(count)
        return [
            Batch(*tensors, self.global_size, soft)
            for *tensors, soft in zip(images, targets, soft_targets, strict=True)
        ]


class Batches(Protocol):
    """Batches of one pass, and how many ``images`` it has over all processes."""

    @property
    def images(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


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


class GlobalBatches(Sampler[list[SampleKey]]):
    """One process's share of each global batch.

    The samples are cut into global batches in the same way whatever the number of processes;
    of each, the process of rank r takes every ``world_size``-th sample from the r-th on.

    Args:
        num_samples: size of the data set.
        global_batch_size: images a step over all processes.
        process: this process.
        shuffle_seed: decides, with the epoch, the order of the samples; None keeps it.
        smallest: a last batch of fewer images than this is left out.
        limit: number of batches at most.
        shard_sizes: where the samples lie in shards, of how many samples; ``shard_order`` then
            decides the order.
        workers: processes that decode for this one; of influence with ``shard_sizes`` only.
        repeats: how often each sample is taken in a row. The epoch is as long as ever, so that it
            has a ``repeats``-th of the samples: timm's ``RepeatAugSampler``, M. Berman et al.,
            "MultiGrain: a unified image embedding for classes and instances", 2019.
    """

    def __init__(
        self,
        num_samples: int,
        global_batch_size: int,
        process: Process,
        shuffle_seed: int | None = None,
        smallest: int = 1,
        limit: int | None = None,
        shard_sizes: Sequence[int] | None = None,
        workers: int = 0,
        repeats: int = 1,
    ) -> None:
        sizes = [
            min(global_batch_size, num_samples - start)
            for start in range(0, num_samples, global_batch_size)
        ]
        self.global_sizes = [size for size in sizes if size >= smallest][:limit]
        self.num_samples = num_samples
        self.process = process
        self.shuffle_seed = shuffle_seed
        self.shard_sizes = shard_sizes
        self.workers = workers
        self.repeats = repeats
        self.epoch = self.first_batch = 0

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the order and the augmentation of the epoch that is iterated next.

        Its first ``first_batch`` batches are left out.
        """
        self.epoch, self.first_batch = epoch, first_batch

    @property
    def remaining_sizes(self) -> list[int]:
        """Numbers of images of the global batches that are iterated next."""
        return self.global_sizes[self.first_batch :]

    def __len__(self) -> int:
        return len(self.remaining_sizes)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        start = sum(self.global_sizes[: self.first_batch])
        order = self._order()
        for size in self.remaining_sizes:
            share = order[start + self.process.rank : start + size : self.process.world_size]
            yield [
                SampleKey(self.epoch, *divmod(number, self.repeats)) for number in share.tolist()
            ]
            start += size

    def _order(self) -> Tensor:
        """Return the samples' numbers in the order of the epoch, as ``with_repeats`` has them."""
        generator = None
        if self.shuffle_seed is not None:
            generator = torch.Generator()
            generator.manual_seed(derive_seed(self.shuffle_seed, "shuffle", self.epoch))
        if self.shard_sizes is not None:
            world_size = self.process.world_size
            return shard_order(
                shard_sizes=self.shard_sizes,
                batch_sizes=self.global_sizes,
                world_size=world_size,
                workers=self.workers,
                generator=generator,
                repeats=self.repeats,
            )
        if generator is None:
            order = torch.arange(self.num_samples)
        else:
            order = torch.randperm(self.num_samples, generator=generator)
        return with_repeats(order, self.repeats)


class BatchLoader:
    """Iterates the ``Batch``es of one process on its device.

    Args:
        dataset: the images.
        sampler: which of them each batch holds; a share without images is passed over.
        workers: number of processes that decode; 0 decodes in this one.
        process: this process.
        seed: decides the random state that the workers start an epoch with.
        bad_images: counts those that are skipped; None makes the first one an error.
        worker_timeout: seconds without a batch from the workers that are an error, if any.
        mixing: of the images of each batch, if any.
    """

    def __init__(
        self,
        dataset: TransformedImages,
        sampler: GlobalBatches,
        workers: int,
        process: Process,
        seed: int,
        bad_images: BadImages | None = None,
        worker_timeout: int = 0,
        mixing: Mixing | None = None,
    ) -> None:
        self.sampler = sampler
        self.process = process
        self.seed = seed
        self.mixing = mixing
        self.bad_images = bad_images
        self.generator = torch.Generator()
        self.batch_transform = dataset.batch_transform.to(process.device)
        self.loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=process.device.type == "cuda",
            generator=self.generator,
            timeout=worker_timeout if workers else 0,
            worker_init_fn=worker_start(),
        )

    @property
    def images(self) -> int:
        """Number of images of the pass that comes next, over all processes."""
        return sum(self.sampler.remaining_sizes)

    @property
    def batches_of_epoch(self) -> int:
        """Number of global batches of a whole pass."""
        return len(self.sampler.global_sizes)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the order and the augmentation of the epoch that is iterated next.

        Its first ``first_batch`` batches are left out.
        """
        self.sampler.set_epoch(epoch, first_batch)
        self.generator.manual_seed(derive_seed(self.seed, "workers", epoch, self.process.rank))

    def __iter__(self) -> Iterator[Batch]:
        device = self.process.device
        with hold_stop_signals():
            shares = iter(self.loader)
        sizes = enumerate(self.sampler.remaining_sizes, start=self.sampler.first_batch)
        for (samples, bad_images), (number, global_size) in zip(shares, sizes, strict=True):
            self._skip(bad_images)
            if samples is None:
                continue
            images, *draws, targets = (
                tensor.to(device, non_blocking=True)
                for tensor in (samples.image, *samples.draws, samples.target)
            )
            images, soft_targets = self.batch_transform(images, draws), None
            if self.mixing is not None:
                seed = derive_seed(
                    self.seed, "mixing", self.sampler.epoch, number, self.process.rank
                )
                images, targets, soft_targets = self.mixing(images, targets, seed)
            yield Batch(images, targets, global_size, soft_targets)

    def _skip(self, found: Sequence[BadImage]) -> None:
        for image in found:
            if self.bad_images is None or not image.can_be_skipped:
                raise UserError(
                    f"{image.name}: cannot be read as an image ({image.reason}); replace or "
                    "remove the file"
                    + (", or see --on-bad-image skip" if image.can_be_skipped else "")
                )
        if self.bad_images is not None:
            self.bad_images.add(found)


def collate(fetched: Sequence[Sample | BadImage]) -> Share:
    """Return the samples stacked, and the bad images beside them."""
    samples = [each for each in fetched if isinstance(each, Sample)]
    bad_images = [each for each in fetched if isinstance(each, BadImage)]
    return Share(default_collate(samples) if samples else None, bad_images)
