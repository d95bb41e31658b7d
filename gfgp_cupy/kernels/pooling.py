"""Pooling out of launches: results allocated, launches described, an executor runs them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..geometry import PoolGeometry
from ..memory_format import layout_of
from . import disjoint, overlapping
from .launch import Launch
from .plan import gather, pool_forward, window_statistics

__all__ = ["backward", "forward"]


def forward(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, run: Callable[[Launch], None]
) -> Tensor:
    """Pools [N, C, H, W] ``input`` with λ of 4 dimensions to [N, C, oH, oW]."""
    layout = layout_of(input)
    shape = (*input.shape[:2], *geometry.output_size(*input.shape[2:]))
    output = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=layout)
    if output.numel() > 0:
        input = input.contiguous(memory_format=layout)
        kernels = _specialised(input, geometry)
        if kernels is not None:
            run(kernels.forward(input, lam, output, None, geometry))
        else:
            run(pool_forward(input, lam, output, geometry))
    return output


def backward(
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    geometry: PoolGeometry,
    needed: tuple[bool, bool],
    run: Callable[[Launch], None],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of ``input`` and ``lam``; ``None`` for one that is not ``needed``.

    A first kernel finds each window's statistics, a second adds up for each input element what
    its windows send back: no atomics, hence the same bits on every run.
    """
    layout = layout_of(input)
    grad_input = torch.empty_like(input, memory_format=layout) if needed[0] else None
    if grad_output.numel() == 0:
        return grad_input, torch.zeros_like(lam) if needed[1] else None
    input = input.contiguous(memory_format=layout)
    grad_output = grad_output.contiguous(memory_format=layout)

    kernels = _specialised(input, geometry)
    if kernels is not None:
        parts = kernels.lam_parts(grad_output, input, lam, geometry) if needed[1] else None
        run(kernels.backward(grad_output, input, lam, None, grad_input, parts, geometry))
        return grad_input, _summed(parts, lam)

    def output_sized() -> Tensor:
        return torch.empty_like(grad_output, dtype=lam.dtype, memory_format=layout)

    statistics = (output_sized(), output_sized()) if needed[0] else None
    parts = output_sized().unsqueeze(1) if needed[1] else None
    window_grad_lam = None if parts is None else parts.squeeze(1)
    run(window_statistics(grad_output, input, lam, statistics, window_grad_lam, geometry))
    if grad_input is not None:
        run(gather(grad_output, input, lam, statistics, grad_input, geometry))
    return grad_input, _summed(parts, lam)


def _specialised(input: Tensor, geometry: PoolGeometry):
    """The module whose kernels fit the geometry best, ``None`` for the general ones."""
    for kernels in (disjoint, overlapping):
        if kernels.serves(input, geometry):
            return kernels
    return None


def _summed(parts: Tensor | None, lam: Tensor) -> Tensor | None:
    """λ's gradient from its [N, chunks, C, ...] parts."""
    return None if parts is None else parts.sum(1).sum_to_size(lam.shape).contiguous()
