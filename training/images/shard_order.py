"""The order in which samples in shards are taken, such that every worker reads straight on."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

WINDOW = 1024
"""Samples of a shard that a worker holds, still encoded, and that are shuffled among themselves."""


def shard_order(
    shard_sizes: Sequence[int],
    batch_sizes: Sequence[int],
    world_size: int,
    workers: int,
    generator: torch.Generator | None,
    repeats: int = 1,
) -> Tensor:
    """Return which sample stands at each place of the global batches: [sum of ``batch_sizes``].

    The samples are put into one sequence: the shards shuffled, in each of them its windows in
    turn, shuffled inside; without ``generator`` in their own order. Each worker of each process
    gets a section of that sequence. A worker takes every ``workers``-th batch of its process, and
    a process of rank r every ``world_size``-th sample of a global batch from the r-th on
    (``GlobalBatches``), so that is where a section's samples are put, one after the other.
    Wherever sections begin and end, each sample of the sequence has one place.

    Args:
        shard_sizes: number of samples of each shard; samples are counted through them in turn.
        batch_sizes: of the global batches; together at most all samples.
        workers: of each process; 0 counts as 1.
        repeats: how often each sample is taken in a row; they are then numbered as by
            ``with_repeats``.
    """
    sequence = with_repeats(shard_sequence(shard_sizes, generator), repeats)
    streams = max(1, workers)
    starts = [0, *itertools.accumulate(batch_sizes)]
    order = torch.empty(starts[-1], dtype=torch.int64)
    taken = 0
    for rank in range(world_size):
        for worker in range(streams):
            for batch in range(worker, len(batch_sizes), streams):
                places = order[starts[batch] + rank : starts[batch + 1] : world_size]
                places.copy_(sequence[taken : taken + len(places)])
                taken += len(places)
    return order


def with_repeats(sequence: Tensor, repeats: int) -> Tensor:
    """Return each element i of ``sequence`` as ``repeats`` i, ``repeats`` i + 1 and so on.

    Example:
        >>> with_repeats(torch.tensor([5, 0]), repeats=3)
        tensor([15, 16, 17,  0,  1,  2])
    """
    return (sequence[:, None] * repeats + torch.arange(repeats)).flatten()


def shard_sequence(shard_sizes: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Return all samples, shard after shard and window after window; see ``shard_order``."""
    shards = torch.arange(sum(shard_sizes)).split(list(shard_sizes))
    if generator is None:
        return torch.cat(shards)
    shuffled = torch.randperm(len(shards), generator=generator).tolist()
    return torch.cat(
        [
            window[torch.randperm(len(window), generator=generator)]
            for shard in shuffled
            for window in shards[shard].split(WINDOW)
        ]
    )
