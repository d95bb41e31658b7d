"""Launches of ``disjoint.cu``: windows that tile the plane, each in the registers of one thread."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

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


def forward(
    problem: Problem, input: Tensor, lam: Tensor, output: Tensor, spread: Tensor | None
) -> Launch:
    """Writes the pooled ``input``, and each window's standard deviation where ``spread`` is given.

    All tensors but λ are dense and in one memory format.
    """
    on = () if spread is None else ("WRITE_SPREAD",)
    lanes, defines, sizes = _deal(problem, aligned_elements(input, output, spread), on)
    return Launch(
        name="max_ent_pool2d_disjoint_forward",
        source=SOURCE,
        defines=defines,
        grid=lanes.grid,
        block=BLOCK,
        args=(input, lam, output, spread, *sizes),
    )


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int:
    """Into how many parts :func:`backward` sums up a plane's part of λ's gradient."""
    return _deal(problem, aligned_elements(input, grad_output), ())[0].chunks


def backward(
    problem: Problem,
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    mean_grad: Tensor | None,
    grad_input: Tensor | None,
    grad_lam: Tensor | None,
) -> Launch:
    """Writes the gradients that are given a tensor: ``grad_input``, and ``grad_lam`` in parts,
    [N, chunks, C], or, where λ varies inside planes, for each window.

    ``mean_grad`` [N, C], of λ's type, is added to every element's gradient.
    """
    on = tuple(
        name
        for name, tensor in (
            ("ADD_MEAN_GRAD", mean_grad),
            ("WRITE_GRAD_INPUT", grad_input),
            ("WRITE_GRAD_LAM", grad_lam),
        )
        if tensor is not None
    )
    lanes, defines, sizes = _deal(problem, aligned_elements(input, grad_output), on)
    return Launch(
        name="max_ent_pool2d_disjoint_backward",
        source=SOURCE,
        defines=defines,
        grid=lanes.grid,
        block=BLOCK,
        args=(grad_output, input, lam, mean_grad, grad_input, grad_lam, *sizes),
        shared_bytes=0 if grad_lam is None else lanes.reduction_elements * problem.acc_size,
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
    lanes = Lanes.of(problem.output_shape, problem.channels_last, vector)
    pack = largest_power_of_two(aligned, dividing=vector * kernel_w)
    defines = (
        *problem.defines, *problem.window_defines, *lanes.defines, f"PACK={pack}", *switches(*on)
    )  # fmt: skip
    sizes = (channels, out_h, out_w, *problem.sizes[5:])
    return lanes, defines, sizes if problem.channels_last else (samples * channels, *sizes)
