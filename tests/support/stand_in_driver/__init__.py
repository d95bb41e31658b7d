"""A stand-in for CUDA's driver, so that the cupy backend runs where there is no GPU.

CuPy's own code runs as it does with a GPU: ``RawKernel`` compiles with NVRTC for sm_90 (or takes
the machine code from CuPy's cache on disk), loads the module, marshals the arguments and calls
``cuLaunchKernel``. There a small C library takes the place of the driver. It hands the launch to
Python: the parameters are read as a driver would read them, compared with those in the machine
code, and ``benchmarks.cuda_on_cpu`` executes the launch on the CPU tensors whose addresses came.

A launch that a GPU would not take, or would do harm with, raises an error in the caller
(``CUDADriverError: STAND_IN_DRIVER: …``): a null pointer that the kernel touches, a wrong number or
size of arguments, an address that is misaligned or in none of the launch's tensors, another stream
than PyTorch's current one, and all that ``benchmarks.cuda_on_cpu`` finds.

Test equipment, never a run-time path. It needs Linux, a C++ compiler, CuPy with NVRTC, and no GPU.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from unittest import mock

import pytest
import torch

from benchmarks.cuda_on_cpu import compiler_available
from gfgp_cupy.backends import cupy as backend
from gfgp_cupy.backends import selection

from .driver import STREAM, capsule_of_gpu, crossing, launch_count, load_driver
from .runtime import replace_runtime

__all__ = [
    "STREAM",
    "capsule_of_gpu",
    "install",
    "launch_count",
    "needs_stand_in",
    "on_cpu_tensors",
    "prepare",
]


def _why_not() -> str | None:
    if torch.cuda.is_available():
        return "there is a GPU, and the cupy backend is tried on that"
    if not compiler_available():
        return "needs Linux and a C++ compiler: g++ on PATH, or $CXX"
    return "needs CuPy" if importlib.util.find_spec("cupy") is None else None


needs_stand_in = pytest.mark.skipif(_why_not() is not None, reason=_why_not() or "")


def prepare() -> None:
    """What must be done before anything imports CuPy, where the stand-in can serve; it is quick."""
    if _why_not() is None:
        replace_runtime()


def install() -> None:
    """Makes the cupy backend serve CPU tensors in this process, for good.

    To be called before CuPy is imported. From then on ``use_backend("cupy")`` works on CPU tensors,
    ``"auto"`` takes it for them, and PyTorch still says that there is no GPU. It is for processes
    of their own (a dry run of a script that is meant for a GPU); tests enter
    :func:`on_cpu_tensors`.

    Example:
        >>> install()  # doctest: +SKIP
        >>> gfgp_cupy.functional.max_ent_pool2d(torch.ones(1, 1, 2, 2), 1.0, 2)  # doctest: +SKIP
        tensor([[[[1.]]]])
    """
    _patches().__enter__()
    selection.automatic_backend.cache_clear()


@contextlib.contextmanager
def on_cpu_tensors() -> Iterator[None]:
    """As :func:`install`, for the ``with`` block."""
    try:
        with _patches():
            yield
    finally:
        selection.automatic_backend.cache_clear()


def _patches() -> contextlib.ExitStack:
    """What makes a CPU tensor look like one on cuda:0 to the backend."""
    load_driver()
    unavailable, run_launch, compile_launches = (
        backend.unavailable,
        backend.run_launch,
        backend.compile_launches,
    )
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu")
    stack = contextlib.ExitStack()
    for target, name, value in (
        (backend, "to_dlpack", crossing),
        (backend, "run_launch", lambda launch, device: run_launch(launch, cuda)),
        (backend, "compile_launches", lambda launches, device: compile_launches(launches, cuda)),
        (
            backend,
            "unavailable",
            lambda device: backend.cannot_run_on(device) if device == cpu else unavailable(device),
        ),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (torch._C, "_cuda_getCurrentRawStream", lambda device_index: STREAM),
    ):
        stack.enter_context(mock.patch.object(target, name, value, create=True))
    return stack
