"""Backend ``cupy``: CUDA kernels compiled at run time, for CUDA tensors.

Tensors cross to CuPy by DLPack, without a copy; the results come from PyTorch's allocator. Kernels
run on PyTorch's current stream and the tensor's own device, so that the whole path can be captured
in a CUDA graph once its kernels are compiled.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from ..geometry import PoolGeometry
from ..kernels import Launch, general, pooling
from ..kernels.macros import problem_of

__all__ = ["backward", "forward", "forward_with_spread", "lam_backward", "unavailable"]


def forward(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    """Pools [N, C, H, W] ``input`` with λ of 4 dimensions to [N, C, oH, oW]."""
    return pooling.forward(input, lam, geometry, _runner(input))


def forward_with_spread(
    input: Tensor, lam: Tensor, geometry: PoolGeometry
) -> tuple[Tensor, Tensor]:
    """:func:`forward` and each window's standard deviation, for :func:`lam_backward`."""
    return pooling.forward_with_spread(input, lam, geometry, _runner(input))


def backward(
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    geometry: PoolGeometry,
    needed: tuple[bool, bool],
    mean_grad: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of ``input`` and ``lam``; ``None`` for one that is not ``needed``.

    ``mean_grad``, [N, C, 1, 1] of λ's type, is added to every element's gradient.
    """
    return pooling.backward(
        grad_output, input, lam, geometry, needed, _runner(input), mean_grad
    )


def lam_backward(grad_output: Tensor, spread: Tensor, lam: Tensor) -> Tensor:
    """The gradient of a ``lam`` that is constant over planes, from output-sized tensors alone."""
    return pooling.lam_backward(grad_output, spread, lam, _runner(spread))


@functools.cache
def unavailable(device: torch.device) -> str | None:
    """Why this backend cannot serve ``device``, found out by running a kernel on it once."""
    if device.type != "cuda":
        return "it serves CUDA tensors only"
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed: pip install cupy-cuda12x (or cupy-cuda13x)"
    sample = torch.empty(1, 1, 1, 1, device=device)
    problem = problem_of(sample, sample, PoolGeometry((1, 1), (1, 1), (0, 0), False))
    probe = general.forward(problem, sample, sample, sample, None)
    try:
        _run(probe, sample.device)
    except Exception as error:
        # CuPy, its driver layer and NVRTC each raise types of their own; all become the reason.
        return f"CuPy cannot run a kernel on it: {type(error).__name__}: {error}"
    return None


@functools.cache
def _kernel(name: str, source: str, defines: tuple[str, ...]):
    import cupy

    options = ("-std=c++17", *(f"-D{define}" for define in defines))
    return cupy.RawKernel(source, name, options=options)


def _runner(tensor: Tensor) -> Callable[[Launch], None]:
    return functools.partial(_run, device=tensor.device)


def _run(launch: Launch, device: torch.device) -> None:
    import cupy

    # PyTorch and CuPy may each carry a CUDA runtime, with a current device of its own. That both
    # are right is common, and found out at a tenth of the time of setting them.
    if torch.cuda.current_device() == cupy.cuda.runtime.getDevice() == device.index:
        _launch(launch, device)
    else:
        with torch.cuda.device(device.index), cupy.cuda.Device(device.index):
            _launch(launch, device)


def _launch(launch: Launch, device: torch.device) -> None:
    kernel = _kernel(launch.name, launch.source, launch.defines)
    # Asked of an int, isinstance(…, Tensor) takes as long as a pointer's crossing.
    args = [arg if arg is None or type(arg) is int else _pointer(arg) for arg in launch.args]
    # What torch.cuda.current_stream() wraps, at a twentieth of its time; it has no public name.
    stream = _stream(torch._C._cuda_getCurrentRawStream(device.index))
    kernel((launch.grid,), (launch.block,), args, shared_mem=launch.shared_bytes, stream=stream)


@functools.lru_cache(maxsize=1024)
def _stream(address: int):
    import cupy

    return cupy.cuda.Stream.from_external(_RawStream(address))


class _RawStream:
    """A stream as CuPy takes it; PyTorch's own know this protocol from version 2.10 on only."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


def _pointer(tensor: Tensor):
    """``tensor``'s memory as a CuPy pointer, by DLPack.

    By what ``cupy.from_dlpack`` is made of: a kernel takes an address, and the array around it
    would cost nine times the crossing (and know no bfloat16). And by a capsule, not
    ``Tensor.__dlpack__``: that would ask what is known here (which device, which stream to wait
    for: none, the kernel runs on the one that PyTorch is using), at several times the cost again.
    """
    import cupy

    return cupy.cuda.MemoryPointer(cupy._core.dlpack.DLPackMemory(to_dlpack(tensor)), 0)
