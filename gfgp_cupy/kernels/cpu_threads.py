"""A pool of threads for compiled functions that release Python's lock.

Not Numba's own: its default threading layer may be called by one thread at a time, and GNU
OpenMP's does not survive a fork. This one is used from any number of threads at once (autograd's,
DataParallel's), and a forked process (a DataLoader's worker) starts one of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["run_over"]


def run_over(count: int, smallest: int, run: Callable[[int, int], object]) -> None:
    """Calls ``run(start, stop)`` for parts that make up the range from 0 to ``count``.

    The parts run at the same time, as many as ``torch.get_num_threads()`` says, but none shorter
    than ``smallest``, which should be long enough to be worth waking a thread up.
    """
    parts = max(1, min(torch.get_num_threads(), count // max(1, smallest)))
    bounds = [count * part // parts for part in range(parts + 1)]
    others = [_pool.submit(run, *bounds[part : part + 2]) for part in range(1, parts)]
    try:
        run(*bounds[:2])
    finally:
        # Even after an error: they write to memory that the caller may release.
        for other in others:
            other.exception()
    for other in others:
        other.result()


def _start_pool() -> None:
    """Threads are started by the first call that needs them."""
    global _pool
    _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gfgp_cupy")


_start_pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_pool)
