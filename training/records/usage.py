"""What training made use of: the wait for data, and the GPU's memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from training.processes.ranks import Process, all_reduce_max

if TYPE_CHECKING:
    # What it imports may be missing where only tests of the GPU are run.
    from training.loading.batches import Batch, Batches


@dataclass(frozen=True)
class Usage:
    """The most that any of the processes used.

    Attributes:
        data_wait_percent: share of the time that it waited for the next batch. On a GPU, which
            goes on computing meanwhile, an upper bound of the time that it stood still. nan where
            there was no batch.
        gpu_memory_gib: peak of what PyTorch allocated, in GiB; nan on the CPU.
    """

    data_wait_percent: float
    gpu_memory_gib: float


class MeasuredBatches:
    """Iterates ``batches`` as they are, and measures the use made of time and memory."""

    def __init__(self, batches: Batches, process: Process) -> None:
        self.batches = batches
        self.process = process
        self.start = time.perf_counter()
        self.wait_seconds = 0.0

    @property
    def images(self) -> int:
        """Number of images of a pass, over all processes."""
        return self.batches.images

    def __iter__(self) -> Iterator[Batch]:
        if self.process.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.process.device)
        self.start = asked = time.perf_counter()
        for batch in self.batches:
            self.wait_seconds += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()
        self.wait_seconds += time.perf_counter() - asked

    def usage_of_all(self) -> Usage:
        """Return the use from the start of the pass to now; every process must call it."""
        seconds = time.perf_counter() - self.start
        device = self.process.device
        on_gpu = device.type == "cuda"
        used = torch.tensor(
            [
                100 * self.wait_seconds / seconds if self.images else torch.nan,
                torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else torch.nan,
            ],
            dtype=torch.float64,
            device=device,
        )
        return Usage(*all_reduce_max(used, self.process).tolist())
