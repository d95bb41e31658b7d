"""Launches of ``disjoint.cu``: windows that tile the plane, each in the registers of one thread.

The functions are those of a :class:`.family.Family`.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .family import BackwardTensors, ForwardTensors
from .lanes import BLOCK, Lanes, aligned_elements, largest_power_of_two
from .launch import Launch, source
from .macros import Problem, switches

__all__ = ["backward", "chunks", "forward", "serves"]

SOURCE = source("element.cu", "lanes.cu", "softmax.cu", "disjoint.cu")

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
    sums = lanes.reduction_elements if "WRITE_GRAD_LAM" in on else 0
    return Launch(
        name=name,
        source=SOURCE,
        defines=defines,
        grid=lanes.grid,
        block=BLOCK,
        args=(*tensors, *sizes),
        shared_bytes=sums * problem.acc_size,
    )


@functools.lru_cache(maxsize=4096)
def _deal(
    problem: Problem, aligned: int, on: tuple[str, ...]
) -> tuple[Lanes, tuple[str, ...], tuple[int, ...]]:
    """How planes are dealt to threads, the macros, and the sizes that the kernels are told.

    Accesses are as wide as addresses (``aligned`` elements), the row of windows (or the channels)
    and a thread's registers allow.
    """
    samples, channels, out_h, out_w = problem.output_shape
    kernel_h, kernel_w = problem.geometry.kernel_size
    row, most, taken = out_w, 32, kernel_h * kernel_w
    if problem.channels_last:
        # Each channel has λ, its gradient's sum and two more gradients of its own.
        row, most, taken = channels, 80, taken + 4
    if problem.dtype is torch.float64:
        most //= 4
    vector = largest_power_of_two(min(aligned, most // taken), dividing=row)
    pack = largest_power_of_two(aligned, dividing=vector * kernel_w)
    if not problem.channels_last:
        # No more windows than one access a row needs: neighbouring threads' accesses then adjoin.
        vector = pack // math.gcd(pack, kernel_w)
    lanes = Lanes.of(problem.output_shape, problem.channels_last, vector)
    defines = (
        *problem.defines, *problem.window_defines, *lanes.defines, f"PACK={pack}", *switches(*on)
    )  # fmt: skip
    sizes = (channels, out_h, out_w, *problem.sizes[5:])
    return lanes, defines, sizes if problem.channels_last else (samples * channels, *sizes)
