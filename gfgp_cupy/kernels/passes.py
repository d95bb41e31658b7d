"""Pooling out of launches: results allocated, launches described, an executor runs them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..geometry import PoolGeometry
from ..max_ent import MAX_ENT
from ..memory_format import layout_of, new_dense
from ..spread import spread_dtype
from ..window_function import WindowFunction
from . import (
    disjoint,
    general,
    lam_gradient,
    marching_channels,
    marching_rows,
    overlapping,
    volume_tiles,
    whole_planes,
)
from .family import BackwardTensors, Family, ForwardTensors
from .formula import needs_many_registers
from .launch import Launch
from .macros import Problem, problem_of

__all__ = ["backward", "forward", "forward_with_spread", "lam_backward"]

Run = Callable[[Launch], object]
"""Executes a launch, or at least takes note of it. Launches come in their order."""

FAMILIES: tuple[Family, ...] = (
    disjoint, marching_rows, marching_channels, overlapping, whole_planes, general,
)  # fmt: skip
"""By preference; the last one serves whatever the others do not."""

EACH_WINDOW_ONCE: tuple[Family, ...] = (
    disjoint, overlapping, marching_rows, marching_channels, whole_planes, general,
)  # fmt: skip
"""Likewise, for gradients of windows that take long to compute: in the marches' backward pass each
thread computes all that reach into its columns."""

OF_VOLUMES: tuple[Family, ...] = (volume_tiles, general)
"""By preference, for windows with a depth."""

FEW_TAPS = 9
"""The most elements of a window that is not among the large ones."""


def forward(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, run: Run, function: WindowFunction = MAX_ENT
) -> Tensor:
    """Pools [N, C, H, W] ``input`` with λ of 4 dimensions to [N, C, oH, oW]."""
    layout = layout_of(input)
    input = input.contiguous(memory_format=layout)
    problem = problem_of(input, lam, geometry, layout, function)
    family, shape = _plan(problem)
    output = new_dense(input, shape, layout)
    _run(family, problem, ForwardTensors(input, lam, output, spread=None), run)
    return output


def forward_with_spread(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, run: Run, function: WindowFunction = MAX_ENT
) -> tuple[Tensor, Tensor]:
    """:func:`forward`, and the derivative of each window's output by θ as :mod:`gfgp_cupy.spread`
    keeps it: of Max-Ent pooling as the standard deviation under the weights."""
    layout = layout_of(input)
    input = input.contiguous(memory_format=layout)
    problem = problem_of(input, lam, geometry, layout, function)
    family, shape = _plan(problem)
    output = new_dense(input, shape, layout)
    spread = new_dense(input, shape, layout, spread_dtype(input.dtype, function.spread))
    _run(family, problem, ForwardTensors(input, lam, output, spread=spread), run)
    return output, spread


def backward(
    grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry,
    needed: tuple[bool, bool], run: Run, mean_grad: Tensor | None = None,
    function: WindowFunction = MAX_ENT,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of ``input`` and ``lam``; ``None`` for one that is not ``needed``.

    ``mean_grad``, [N, C, 1, 1] of λ's type, is added to every element's gradient. No atomics,
    hence the same bits on every run.
    """
    layout = layout_of(input)
    grad_input = new_dense(input, input.shape, layout) if needed[0] else None
    if grad_output.numel() == 0:
        return grad_input, torch.zeros_like(lam) if needed[1] else None
    input = input.contiguous(memory_format=layout)
    grad_output = grad_output.contiguous(memory_format=layout)
    if mean_grad is not None:
        mean_grad = mean_grad.contiguous()
    problem = problem_of(input, lam, geometry, layout, function)
    family, _ = _plan(problem, sends_back=needed[0])
    parts = None
    if needed[1]:
        parts = _parts(family.chunks(problem, input, grad_output), grad_output, lam)
    tensors = BackwardTensors(
        grad_output, input, lam, mean_grad=mean_grad, grad_input=grad_input, grad_lam=parts
    )
    for launch in family.backward(problem, tensors):
        run(launch)
    return grad_input, None if parts is None else _summed(parts, lam)


def lam_backward(
    grad_output: Tensor, spread: Tensor, lam: Tensor, run: Run, function: WindowFunction = MAX_ENT
) -> Tensor:
    """The gradient of a ``lam`` that is constant over planes, from output-sized tensors alone."""
    if grad_output.numel() == 0:
        return torch.zeros_like(lam)
    grad_output = grad_output.contiguous(memory_format=layout_of(spread))
    if spread.dim() == 5:  # a volume as one plane of all its rows
        grad_output, spread = grad_output.flatten(3), spread.flatten(3)
    (samples, channels), pieces = spread.shape[:2], lam_gradient.pieces(spread)
    if pieces > 1:
        grad_output, spread = (
            each.view(samples, channels * pieces, 1, -1) for each in (grad_output, spread)
        )
    parts = _parts(lam_gradient.chunks(grad_output, spread), grad_output, lam)
    run(lam_gradient.lam_gradient(grad_output, spread, parts, function))
    if pieces > 1:
        parts = parts.unflatten(2, (channels, pieces)).sum(3)
    return _summed(parts, lam)


def _run(family: Family, problem: Problem, tensors: ForwardTensors, run: Run) -> None:
    if tensors.output.numel() > 0:
        for launch in family.forward(problem, tensors):
            run(launch)


@functools.lru_cache(maxsize=4096)
def _plan(problem: Problem, sends_back: bool = False) -> tuple[Family, tuple[int, ...]]:
    """The family whose kernels fit the problem best, and the output's shape."""
    families = FAMILIES if len(problem.shape) == 4 else OF_VOLUMES
    if sends_back and families is FAMILIES and _takes_long_in_several_columns(problem):
        families = EACH_WINDOW_ONCE
    return next(family for family in families if family.serves(problem)), problem.output_shape


def _takes_long_in_several_columns(problem: Problem) -> bool:
    """Whether a window takes many instructions, and a column of elements is in several windows."""
    (kernel_h, kernel_w), (_, stride_w), *_ = problem.geometry
    return (
        kernel_h * kernel_w > FEW_TAPS
        and kernel_w > stride_w
        and needs_many_registers(problem.function)
    )


def _parts(chunks: int | None, grad_output: Tensor, lam: Tensor) -> Tensor:
    """Memory for λ's gradient in parts: [N, chunks, C, 1, 1], or [N, 1, C, oH, oW], in
    ``grad_output``'s memory format, where ``chunks`` is None: one for each window."""
    if chunks is None:
        return torch.empty_like(grad_output, dtype=lam.dtype).unsqueeze(1)
    samples, channels = grad_output.shape[:2]
    return lam.new_empty(samples, chunks, channels, *(1,) * (lam.dim() - 2))


def _summed(parts: Tensor, lam: Tensor) -> Tensor:
    """λ's gradient from its [N, chunks, C, ...] parts."""
    whole = parts.squeeze(1) if parts.shape[1] == 1 else parts.sum(1)
    return whole.sum_to_size(lam.shape).contiguous()
