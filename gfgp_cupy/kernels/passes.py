"""Pooling out of launches: results allocated, launches described, an executor runs them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..geometry import PoolGeometry
from ..memory_format import layout_of
from ..spread import spread_dtype
from . import disjoint, general, lam_gradient, overlapping
from .launch import Launch
from .macros import Problem, lam_varies_in_plane, problem_of

__all__ = ["backward", "forward", "forward_with_spread", "lam_backward"]

Run = Callable[[Launch], None]


def forward(input: Tensor, lam: Tensor, geometry: PoolGeometry, run: Run) -> Tensor:
    """Pools [N, C, H, W] ``input`` with λ of 4 dimensions to [N, C, oH, oW]."""
    return _forward(input, lam, geometry, run, with_spread=False)[0]


def forward_with_spread(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, run: Run
) -> tuple[Tensor, Tensor]:
    """:func:`forward` and each window's standard deviation, for :func:`lam_backward`.

    The deviation, not the variance: it has the range of the input, so it fits into as many bits.
    """
    return _forward(input, lam, geometry, run, with_spread=True)


def backward(
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    geometry: PoolGeometry,
    needed: tuple[bool, bool],
    run: Run,
    mean_grad: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of ``input`` and ``lam``; ``None`` for one that is not ``needed``.

    ``mean_grad``, [N, C, 1, 1] of λ's type, is added to every element's gradient. No atomics,
    hence the same bits on every run.
    """
    layout = layout_of(input)
    grad_input = torch.empty_like(input, memory_format=layout) if needed[0] else None
    if grad_output.numel() == 0:
        return grad_input, torch.zeros_like(lam) if needed[1] else None
    input = input.contiguous(memory_format=layout)
    grad_output = grad_output.contiguous(memory_format=layout)
    if mean_grad is not None:
        mean_grad = mean_grad.contiguous()
    problem = problem_of(input, lam, geometry)
    kernels = _kernels(problem)

    def window_sized() -> Tensor:
        return torch.empty_like(grad_output, dtype=lam.dtype, memory_format=layout)

    parts = None
    if needed[1] and (kernels is general or lam_varies_in_plane(lam)):
        parts = window_sized().unsqueeze(1)
    elif needed[1]:
        parts = _chunks_of_planes(kernels.chunks(problem, input, grad_output), input, lam)
    if kernels is not general:
        run(kernels.backward(problem, grad_output, input, lam, mean_grad, grad_input, parts))
    else:
        statistics = (window_sized(), window_sized(), window_sized()) if needed[0] else None
        run(general.window_statistics(problem, grad_output, input, lam, statistics, parts))
        if needed[0]:
            run(general.gather(problem, input, lam, statistics, mean_grad, grad_input))
    return grad_input, None if parts is None else _summed(parts, lam)


def lam_backward(grad_output: Tensor, spread: Tensor, lam: Tensor, run: Run) -> Tensor:
    """The gradient of a ``lam`` that is constant over planes, from output-sized tensors alone."""
    if grad_output.numel() == 0:
        return torch.zeros_like(lam)
    grad_output = grad_output.contiguous(memory_format=layout_of(spread))
    parts = _chunks_of_planes(lam_gradient.chunks(grad_output, spread), spread, lam)
    run(lam_gradient.lam_gradient(grad_output, spread, parts))
    return _summed(parts, lam)


def _forward(input, lam, geometry, run, *, with_spread) -> tuple[Tensor, Tensor | None]:
    input = input.contiguous(memory_format=layout_of(input))
    problem = problem_of(input, lam, geometry)
    output = _output_sized(input, problem, input.dtype)
    spread = _output_sized(input, problem, spread_dtype(input.dtype)) if with_spread else None
    if output.numel() > 0:
        run(_kernels(problem).forward(problem, input, lam, output, spread))
    return output, spread


def _output_sized(input: Tensor, problem: Problem, dtype: torch.dtype) -> Tensor:
    return torch.empty(
        _output_shape(problem), dtype=dtype, device=input.device, memory_format=layout_of(input)
    )


@functools.lru_cache(maxsize=4096)
def _output_shape(problem: Problem) -> tuple[int, int, int, int]:
    return problem.output_shape


@functools.lru_cache(maxsize=4096)
def _kernels(problem: Problem):
    """The module whose kernels fit the problem best."""
    for kernels in (disjoint, overlapping):
        if kernels.serves(problem):
            return kernels
    return general


def _chunks_of_planes(chunks: int, input: Tensor, lam: Tensor) -> Tensor:
    return lam.new_empty(input.shape[0], chunks, input.shape[1], 1, 1)


def _summed(parts: Tensor, lam: Tensor) -> Tensor:
    """λ's gradient from its [N, chunks, C, ...] parts."""
    whole = parts.squeeze(1) if parts.shape[1] == 1 else parts.sum(1)
    return whole.sum_to_size(lam.shape).contiguous()
