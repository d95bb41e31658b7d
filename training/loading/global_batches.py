"""Which samples each process takes at each step."""

import zlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from training.images.shard_order import shard_order, with_repeats
from training.loading.samples import SampleKey
from training.processes.ranks import Process
from training.seeding import derive_seed


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
        self.global_batch_size = global_batch_size
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
        order = self._order(self.epoch)
        for size in self.remaining_sizes:
            share = order[start + self.process.rank : start + size : self.process.world_size]
            yield [
                SampleKey(self.epoch, *divmod(number, self.repeats)) for number in share.tolist()
            ]
            start += size

    def checksum(self, epoch: int, batches: int) -> int:
        """Return the CRC-32 of the samples' numbers in the first ``batches`` of ``epoch``.

        They are those of all processes together: after the same ones, the same are left.
        """
        # Not by ``global_sizes``, of which a run with another limit may have had more.
        taken = min(batches * self.global_batch_size, self.num_samples)
        return zlib.crc32(self._order(epoch)[:taken].numpy())

    def _order(self, epoch: int) -> Tensor:
        """Return the samples' numbers in the order of ``epoch``, as ``with_repeats`` has them."""
        generator = None
        if self.shuffle_seed is not None:
            generator = torch.Generator()
            generator.manual_seed(derive_seed(self.shuffle_seed, "shuffle", epoch))
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
