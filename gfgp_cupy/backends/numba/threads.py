"""Runs compiled functions on several threads: PyTorch's own.

PyTorch's CPU operators run on OpenMP's threads, which spin for milliseconds after each operator in
case another one follows. Other threads would have to share the cores with them; so ours are the
same ones, by way of the function that compiled OpenMP programs call (``GOMP_parallel``: GNU's
library has it, LLVM's and Intel's have it too on Linux).

Where there is no such function, and in a forked process (a DataLoader's worker), which OpenMP's
threads have not followed, a pool of Python's threads does the work.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress

import torch

__all__ = ["Native", "parts_of", "run_together"]

Native = Callable[[int], None]
"""A compiled function of an address, as ctypes calls it: without Python's lock."""


def parts_of(count: int, smallest: int) -> int:
    """Into how many parts to divide ``count`` things: as many as ``torch.get_num_threads()`` says,
    but none shorter than ``smallest``, which should be long enough to be worth waking a thread."""
    return max(1, min(torch.get_num_threads(), count // max(1, smallest)))


def run_together(function: Native, block: int, threads: int, memory: object) -> None:
    """Calls ``function(block)`` on so many threads at the same time, perhaps fewer; one at least.

    May itself be called from any number of threads at once (autograd's, DataParallel's).

    Args:
        memory: what owns the block and all that it holds addresses of. Each thread has hold of it
            until it is done, since an interrupt (Ctrl-C) waits for none.
    """
    if threads == 1:
        function(block)
    else:
        _run_on_threads(function, block, threads, memory)


def _on_openmp_threads(function: Native, block: int, threads: int, memory: object) -> None:
    # No Python runs in between, so neither does an interrupt.
    _openmp.GOMP_parallel(function, ctypes.c_void_p(block), threads, 0)


def _on_pool(function: Native, block: int, threads: int, memory: object) -> None:
    def call(memory: object) -> None:
        function(block)

    others = []
    # After the last line of the main thread, where others may go on, no pool takes on any work.
    with suppress(RuntimeError):
        for _ in range(1, threads):
            others.append(_pool.submit(call, memory))
    try:
        function(block)
    finally:
        wait(others)


def _use_pool() -> None:
    """The pool's threads are started by the first call that needs them."""
    global _pool, _run_on_threads
    _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gfgp_cupy")
    _run_on_threads = _on_pool


_openmp = ctypes.CDLL(None) if sys.platform == "linux" else None
_run_on_threads = _on_openmp_threads

if not hasattr(_openmp, "GOMP_parallel"):
    _use_pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_pool)
