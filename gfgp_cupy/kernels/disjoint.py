"""Launches of ``disjoint.cu``: windows that tile the plane, each in the registers of one thread.

The functions are those of a :class:`.family.Family`.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .family import BackwardTensors, ForwardTensors
from .lanes import BLOCK, Lanes, aligned_elements, inverse, largest_power_of_two
from .launch import Launch, source
from .macros import Problem, switches
from .planes import Planes

__all__ = ["backward", "chunks", "forward", "serves"]

CONTIGUOUS = source(
    "element.cu", "divide.cu", "planes.cu", "taps.cu", "softmax.cu", "disjoint.cu",
    "disjoint_contiguous.cu",
)  # fmt: skip
CHANNELS_LAST = source(
    "element.cu", "divide.cu", "lanes.cu", "taps.cu", "softmax.cu", "disjoint.cu",
    "disjoint_channels_last.cu",
)  # fmt: skip

MAX_TAPS = 16
"""Elements of a window, which one thread holds in registers."""


def serves(problem: Problem) -> bool:
    """Whether the windows tile the planes exactly and fit into registers."""
    geometry = problem.geometry
    (kernel_h, kernel_w), (height, width) = geometry.kernel_size, problem.shape[2:]
    return (
        geometry.stride == geometry.kernel_size
        and geometry.padding == (0, 0)
        and 1 < kernel_h * kernel_w <= MAX_TAPS
        and height % kernel_h == 0
        and width % kernel_w == 0
    )


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    aligned = aligned_elements(tensors.input, tensors.output, tensors.spread)
    return [_launch("max_ent_pool2d_disjoint_forward", problem, aligned, tensors)]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    if problem.lam_varies_in_plane:
        return None
    return _deal(problem, aligned_elements(input, grad_output), ())[0].chunks


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    aligned = aligned_elements(tensors.input, tensors.grad_output)
    return [_launch("max_ent_pool2d_disjoint_backward", problem, aligned, tensors)]


def _launch(
    name: str, problem: Problem, aligned: int, tensors: ForwardTensors | BackwardTensors
) -> Launch:
    on = tensors.switches
    lanes, defines, sizes = _deal(problem, aligned, on)
    shared = lanes.shared_elements(sums="WRITE_GRAD_LAM" in on)
    return Launch(
        name=name,
        source=CHANNELS_LAST if problem.channels_last else CONTIGUOUS,
        defines=defines,
        grid=lanes.grid,
        block=BLOCK,
        args=(*tensors, *sizes),
        shared_bytes=shared * problem.acc_size,
    )


@functools.lru_cache(maxsize=4096)
def _deal(
    problem: Problem, aligned: int, on: tuple[str, ...]
) -> tuple[Lanes | Planes, tuple[str, ...], tuple[int, ...]]:
    """How planes are dealt to threads, the macros, and the sizes that the kernels are told.

    Accesses are as wide as addresses (``aligned`` elements), the row of windows (or the channels)
    and a thread's registers allow.
    """
    channels, out_w = problem.shape[1], problem.output_shape[3]
    kernel_h, kernel_w = problem.geometry.kernel_size
    row, most, taken = out_w, 32, kernel_h * kernel_w
    if problem.channels_last:
        # Each channel has λ, its gradient's sum and two more gradients of its own.
        row, most, taken = channels, 80, taken + 4
    if problem.dtype is torch.float64:
        most //= 4
    vector = largest_power_of_two(min(aligned, most // taken), dividing=row)
    defines = (*problem.defines, *problem.window_defines, *switches(*on))
    steps = problem.sizes[5:]
    if problem.channels_last:
        lanes = Lanes.of(problem.output_shape, True, vector, problem.dtype.itemsize)
        out_h = problem.output_shape[2]
        sizes = (channels, out_h * out_w, *lanes.sizes, out_w, inverse(out_w), *steps)
        return lanes, (*defines, *lanes.defines), sizes
    pack = largest_power_of_two(aligned, dividing=vector * kernel_w)
    # No more windows than one access a row needs: neighbouring threads' accesses then adjoin.
    vector = pack // math.gcd(pack, kernel_w)
    window_bytes = kernel_h * kernel_w * problem.dtype.itemsize
    planes = Planes.of(problem.output_shape, vector, window_bytes)
    sizes = (*planes.sizes(channels), *steps)
    return planes, (*defines, *planes.defines, f"PACK={pack}"), sizes
