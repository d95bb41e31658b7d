"""Batches of samples on the device of their process."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from training.errors import UserError
from training.images.mixing import Mixing
from training.loading.bad_images import BadImage, BadImages
from training.loading.global_batches import GlobalBatches
from training.loading.samples import Sample, TransformedImages
from training.loading.workers import SECONDS_BETWEEN_LOOKS, shares_of, worker_start
from training.processes.ranks import Process
from training.seeding import derive_seed


class Share(NamedTuple):
    """What is decoded of a batch: its samples stacked, None if there are none; bad images."""

    samples: Sample | None
    bad_images: list[BadImage]


@dataclass(frozen=True)
class Batch:
    """This process's share of a global batch.

    Attributes:
        images: [N, 3, H, W] floats on the process's device.
        targets: [N] class indices there; of images that were mixed, with the largest share.
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


class BatchLoader:
    """Iterates the ``Batch``es of one process on its device.

    Args:
        dataset: the images.
        sampler: which of them each batch holds; a share without images is passed over.
        workers: number of processes that decode; 0 decodes in this one.
        process: this process.
        seed: decides the random state that the workers start an epoch with.
        bad_images: counts those that are skipped; None makes the first one an error.
        worker_timeout: seconds without a batch from the workers that are an error.
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
        worker_timeout: float = math.inf,
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
            timeout=min(SECONDS_BETWEEN_LOOKS, worker_timeout) if workers else 0,
            worker_init_fn=worker_start(),
        )
        self.worker_timeout = worker_timeout

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
        shares = shares_of(self.loader, self.worker_timeout)
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
