"""Runs compiled functions that release Python's lock on several threads: PyTorch's own.

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

import torch

__all__ = ["run_over"]


def run_over(count: int, smallest: int, run: Callable[[int, int], object]) -> None:
    """Calls ``run(start, stop)`` for parts that make up the range from 0 to ``count``.

    The parts run at the same time, as many as ``torch.get_num_threads()`` says, but none shorter
    than ``smallest``, which should be long enough to be worth waking a thread up. May itself be
    called from any number of threads at once (autograd's, DataParallel's).
    """
    parts = max(1, min(torch.get_num_threads(), count // max(1, smallest)))
    if parts == 1:
        run(0, count)
        return
    errors, ended = [], []

    def run_part(part: int, of: int) -> None:
        try:
            run(count * part // of, count * (part + 1) // of)
        except BaseException as error:
            # To be raised by the caller's thread, when no part writes to its memory any more.
            errors.append(error)
        ended.append(of)

    _run_parts(parts, run_part)
    if errors:
        raise errors[0]
    if not ended or len(ended) < ended[0]:
        # One did not even begin, and ctypes has printed why: only a signal can do that.
        raise KeyboardInterrupt


def _on_openmp_threads(parts: int, run_part: Callable[[int, int], None]) -> None:
    def body(_) -> None:
        # There may be fewer threads than asked for.
        run_part(_openmp.omp_get_thread_num(), _openmp.omp_get_num_threads())

    _openmp.GOMP_parallel(_BODY(body), None, parts, 0)


def _on_pool(parts: int, run_part: Callable[[int, int], None]) -> None:
    others = [_pool.submit(run_part, part, parts) for part in range(1, parts)]
    try:
        run_part(0, parts)
    finally:
        wait(others)


def _use_pool() -> None:
    """The pool's threads are started by the first call that needs them."""
    global _pool, _run_parts
    _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gfgp_cupy")
    _run_parts = _on_pool


_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_openmp = ctypes.CDLL(None) if sys.platform == "linux" else None
_run_parts = _on_openmp_threads

if not hasattr(_openmp, "GOMP_parallel"):
    _use_pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_pool)
