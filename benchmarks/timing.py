"""Time of calls on the CPU and on a GPU, and the state of the cache that they meet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

__all__ = ["Cache", "Timer", "cache_bytes", "timer_of"]

Result = TypeVar("Result")
Timer = Callable[[Callable[[], Result]], tuple[Result, Callable[[], float]]]
"""Makes a call; returns its result, and a function that waits for its end and gives its seconds."""

CACHE_LIMIT = 256 * 2**20
"""Where a processor has more cache than that, it is a virtual machine's share of a larger one."""

UNKNOWN_CACHE = 32 * 2**20

HEAD_START = 1e-3
"""Seconds of work that a GPU is given before a timed call, for the host to get ahead in."""


def timer_of(device: torch.device) -> Timer:
    """Wall-clock time on the CPU; on a GPU the time between two events in its stream."""
    return _timed_on_gpu if device.type == "cuda" else _timed_on_cpu


def _timed_on_cpu(call):
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    return result, lambda: seconds


def _timed_on_gpu(call):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    result = call()
    end.record()

    def seconds() -> float:
        end.synchronize()
        return start.elapsed_time(end) / 1000

    return result, seconds


def cache_bytes(device: torch.device) -> int:
    """Size of the device's last-level cache."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = [
        int(file.read_text().strip().removesuffix("K")) * 1024
        for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    ]
    return min(max(sizes, default=UNKNOWN_CACHE), CACHE_LIMIT)


class Cache:
    """The last-level cache of a device, and the traffic that pushes everything else out of it.

    Args:
        size: in bytes.
    """

    def __init__(self, device: torch.device, size: int) -> None:
        self.size = size
        # A copy, since lines read and lines written are what a pass finds in a running network.
        self._source, self._target = torch.zeros(2, size, dtype=torch.uint8, device=device)
        self._head_start = 0
        if device.type == "cuda":
            self._head_start = math.ceil(HEAD_START / self._eviction_seconds())

    def evict(self) -> None:
        """Fills the cache with other data."""
        self._target.copy_(self._source)

    def head_start(self) -> None:
        """On a GPU, keeps it busy evicting the cache while the host prepares the next call.

        What is timed then is the GPU's own work, without gaps in which it waits for the host.
        """
        for _ in range(self._head_start):
            self.evict()

    def _eviction_seconds(self) -> float:
        self.evict()
        _, seconds = _timed_on_gpu(lambda: [self.evict() for _ in range(10)])
        return seconds() / 10
