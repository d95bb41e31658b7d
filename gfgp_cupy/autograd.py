"""The autograd function around the operators."""

from __future__ import annotations

import torch
from torch import Tensor

from . import ops
from .backends import torch as reference
from .geometry import PoolGeometry

__all__ = ["MaxEntPool2dFunction"]


class MaxEntPool2dFunction(torch.autograd.Function):
    """Max-Ent pooling of 4-D ``input`` with 4-D ``lam``, on the backend named.

    Saves the input and λ, nothing else: the backward computes the weights again, which costs
    arithmetic (plentiful in a memory-bound operator) instead of memory and traffic.
    """

    @staticmethod
    def forward(input: Tensor, lam: Tensor, geometry: PoolGeometry, backend: str) -> Tensor:
        return ops.max_ent_pool2d(
            input, lam, geometry.kernel_size, geometry.stride, geometry.padding,
            geometry.ceil_mode, backend,
        )

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, lam, ctx.geometry, ctx.backend = inputs
        ctx.save_for_backward(input, lam)

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        input, lam = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            return *_differentiable_backward(grad_output, input, lam, ctx.geometry, needed), \
                None, None
        geometry = ctx.geometry
        grad_input, grad_lam = ops.max_ent_pool2d_backward(
            grad_output, input, lam, geometry.kernel_size, geometry.stride, geometry.padding,
            geometry.ceil_mode, ctx.backend, needed,
        )
        return grad_input if needed[0] else None, grad_lam if needed[1] else None, None, None


def _differentiable_backward(grad_output, input, lam, geometry, needed):
    """Both gradients as differentiable functions of all three tensors, for double backward."""
    wanted = [tensor for tensor, need in zip((input, lam), needed, strict=True) if need]
    output = reference.composition(input, lam, geometry)
    gradients = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=True))
    return tuple(next(gradients) if need else None for need in needed)
